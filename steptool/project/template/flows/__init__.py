"""The flows that deployments name (infra/prefect.yaml). A project owns its copy: edit it.

    pipeline    all stages of dvc.yaml
    promotion   the candidate through the gate, and past a person where promote.approval says so
    improve     pipeline, then promotion: what a schedule runs
    node        one stage on another machine

What they are made of is in `steptool.orchestration`.
"""

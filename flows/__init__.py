"""Prefect over the DVC graph: when and where a stage runs, what happens when it fails, who is asked.

    graph       the stages of dvc.yaml, in order, and their entries in dvc.lock; the only module that imports DVC
    process     one command in a process group of its own, its lines passed on, gone when its owner is gone
    workspace   the checkout that stages run in
    stage       one stage as a Prefect task: retries, timeout, progress, artifacts
    node        a stage on another machine, and `remote`, the side that asks for it
    heartbeat   how the two see that the other still lives
    transfer    data to and from the DVC remote, over a network that may be away
    pipeline    the flow over all stages
    approvals   what a promotion asks a person, and the answer
    promotion   the flow that asks, and that carries out the answer
    improve     pipeline, then promotion: what a schedule runs
    events      the event that there is new data
    deploy      infra/prefect.yaml on a Prefect server
    servers     long-lived processes that start, answer and end together
    serve       server, worker and MLflow's pages on one machine
    services    PostgreSQL (`postgres`), an S3 server, MLflow and Prefect as plain processes

Prefect lives only here, and nothing here knows a stage by name.
"""

"""Prefect over the DVC graph: when and where a stage runs, what happens when it fails, who is asked.

    graph      the stages of dvc.yaml (`stages`, the only module that imports DVC), a stage as a process and as a task
    machines   a stage on another machine: who asks for it, how both sides see that the other lives, how data travels
    approval   what a promotion asks a person, and the answer
    services   servers that start, answer and end together; deployments

Prefect lives only here and in `flows`, and nothing here knows a stage by name.
"""

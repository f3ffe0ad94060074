"""One stage on another machine: what a worker of the pool `gpu` runs."""

from __future__ import annotations

from prefect import flow
from prefect.states import State

from steptool.orchestration.machines.requested import run_requested_stage


@flow(name="stage")
def remote_stage(stage: str, commit: str, params: str, lock: str, parent_run: str, again: bool = False) -> State:
    """Run one stage in this machine's clone; its entry of dvc.lock, as JSON, is the message of the final state.

    commit: what to check out. params, lock: the texts of params.yaml and dvc.lock where the pipeline runs.
    parent_run: the MLflow run to hang the stage's run under. again: run it, changed or not.
    """
    return run_requested_stage(stage, commit, params, lock, parent_run, again=again)

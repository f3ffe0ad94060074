"""A stage on another machine: its own clone of the repository, nothing shared but Git and the DVC remote.

    orchestrator                                    node
    pushes the inputs            ─ DVC remote ─>    checks the commit out, writes params.yaml and dvc.lock
    sends a request              ─ Prefect ─────>   pulls the inputs, runs the stage, pushes its outputs
    merges the entry, pulls      <─ dvc.lock entry, as the flow run's message

The entry alone says what was made of what, so afterwards `dvc status` finds everything up to date here as there.
A node that lost its network after the stage has the result in its cache: what is repeated is the push.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.concurrency.sync import concurrency
from prefect.states import Completed, State

from flows.graph import LOCK, lock_entry, read_graph
from flows.workspace import Workspace, open_workspace
from steptool.storage import write_bytes

CLONE_VARIABLE = "STEPTOOL_CLONE"
"""Folder of the node's clone; the working directory where it is not set."""
GPU_LIMIT = "gpu"
"""Global concurrency limit that a stage occupies: `prefect gcl create gpu --limit <number of GPUs>`."""
TRANSFER_DELAYS_S = [2.0, 5.0, 15.0, 30.0, 60.0, 60.0, 120.0, 120.0, 300.0, 300.0]
"""Between attempts to reach the DVC remote: a quarter of an hour in all."""


@flow(name="stage")
def remote_stage(stage: str, commit: str, params: str, lock: str, parent_run: str, again: bool = False) -> State:
    """Run one stage in this node's clone; its entry of dvc.lock, as JSON, is the message of the final state.

    commit: what to check out. params, lock: the texts of params.yaml and dvc.lock where the pipeline runs.
    parent_run: the MLflow run to hang the stage's run under. again: run it, changed or not.
    """
    clone = Path(os.environ.get(CLONE_VARIABLE, ".")).resolve()
    with open_workspace(clone, parent_run, again=again) as workspace:
        check_out(workspace, commit, params, lock)
        inputs = next(node.inputs for node in read_graph(clone, [stage]) if node.address == stage)
        if inputs:
            transfer(workspace, "pull", list(inputs))
        with concurrency(GPU_LIMIT, occupy=1):
            workspace.dvc("repro", "--single-item", *workspace.force, stage)
        transfer(workspace, "push", [stage])
    return Completed(message=json.dumps(lock_entry(clone, stage)))


def check_out(workspace: Workspace, commit: str, params: str, lock: str) -> None:
    """The code of the commit, the params and the state of the run."""
    workspace.run("git", "fetch", "--quiet", "origin")
    workspace.run("git", "checkout", "--quiet", "--force", "--detach", commit)
    write_bytes(workspace.root / "params.yaml", params.encode())
    write_bytes(workspace.root / LOCK, lock.encode())


@task(
    cache_policy=NO_CACHE, persist_result=False, retries=len(TRANSFER_DELAYS_S), retry_delay_seconds=TRANSFER_DELAYS_S
)
def transfer(workspace: Workspace, direction: str, targets: list[str]) -> None:
    """`dvc pull` or `dvc push`. What has arrived is not sent again, so a retry resumes."""
    workspace.dvc(direction, *(["--force"] if direction == "pull" else []), *targets)

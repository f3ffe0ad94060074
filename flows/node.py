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
import sys
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.concurrency.sync import concurrency
from prefect.states import Completed, State

from flows.graph import LOCK, lock_entry, read_graph
from flows.process import Processes
from flows.stage import stage_environment
from steptool.errors import StepToolError
from steptool.registry.tracking import PARENT_VARIABLE
from steptool.storage import write_bytes

CLONE_VARIABLE = "STEPTOOL_CLONE"
"""Folder of the node's clone; the working directory where it is not set."""
GPU_LIMIT = "gpu"
"""Global concurrency limit that a stage occupies: `prefect gcl create gpu --limit <number of GPUs>`."""
TRANSFER_DELAYS_S = [2.0, 5.0, 15.0, 30.0, 60.0, 60.0, 120.0, 120.0, 300.0, 300.0]
"""Between attempts to reach the DVC remote: a quarter of an hour in all."""


@flow(name="stage")
def remote_stage(stage: str, commit: str, params: str, lock: str, parent_run: str) -> State:
    """Run one stage in this node's clone; its entry of dvc.lock, as JSON, is the message of the final state.

    commit: what to check out. params, lock: the texts of params.yaml and dvc.lock where the pipeline runs.
    parent_run: the MLflow run to hang the stage's run under.
    """
    clone = Path(os.environ.get(CLONE_VARIABLE, ".")).resolve()
    processes = Processes()
    environment = stage_environment(PARENT_VARIABLE, parent_run)
    try:
        node = Clone(clone, processes, environment)
        node.check_out(commit, params, lock)
        inputs = next(n.inputs for n in read_graph(clone, [stage]) if n.address == stage)
        if inputs:
            transfer(node, "pull", list(inputs))
        with concurrency(GPU_LIMIT, occupy=1):
            node.dvc("--wait-for-lock", "repro", "--single-item", stage)
        transfer(node, "push", [stage])
    finally:
        processes.stop()
    return Completed(message=json.dumps(lock_entry(clone, stage)))


class Clone:
    """The node's clone of the repository."""

    def __init__(self, root: Path, processes: Processes, environment: dict[str, str]) -> None:
        self.root, self._processes, self._environment = root, processes, environment

    def check_out(self, commit: str, params: str, lock: str) -> None:
        """The code of the commit, the params and the state of the run."""
        self.run("git", "fetch", "--quiet", "origin")
        self.run("git", "checkout", "--quiet", "--force", "--detach", commit)
        write_bytes(self.root / "params.yaml", params.encode())
        write_bytes(self.root / LOCK, lock.encode())

    def dvc(self, *arguments: str) -> None:
        self.run(sys.executable, "-m", "dvc", *arguments)

    def run(self, *command: str) -> None:
        """Run a command in the clone, its lines going to the flow run's log. Raises StepToolError where it fails."""
        logger = get_run_logger()
        code = self._processes.run(command, cwd=self.root, environment=self._environment, on_line=logger.info)
        if code != 0:
            raise StepToolError(
                f"`{' '.join(command)}` ended with {code}", where=str(self.root), fix="see the lines above in its log"
            )


@task(
    cache_policy=NO_CACHE, persist_result=False, retries=len(TRANSFER_DELAYS_S), retry_delay_seconds=TRANSFER_DELAYS_S
)
def transfer(node: Clone, direction: str, targets: list[str]) -> None:
    """`dvc pull` or `dvc push`. What has arrived is not sent again, so a retry resumes."""
    node.dvc("--wait-for-lock", direction, *(["--force"] if direction == "pull" else []), *targets)

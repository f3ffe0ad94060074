"""A stage that another machine asked for, in a clone of its own: nothing is shared but Git and the DVC remote.

    orchestrator                                    node
    pushes the inputs            ─ DVC remote ─>    checks the commit out, writes params.yaml and dvc.lock
    sends a request              ─ Prefect ─────>   pulls the inputs, runs the stage, pushes its outputs
    merges the entry, pulls      <─ dvc.lock entry, as the message of the flow run's final state

The entry alone says what was made of what, so afterwards `dvc status` finds everything up to date here as there.
A node that lost the network after the stage has the result in its cache: what is repeated is the push.

A command that fails gives the final state `Exit <status>`, with its error as the message: the orchestrator can tell
bad input (2) and data that must not be trained on (3) from a fault that may pass.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, State

from steptool.core.storage import write_bytes
from steptool.orchestration.graph.process import Processes, Stopped
from steptool.orchestration.graph.stages import LOCK, lock_entry, read_graph
from steptool.orchestration.graph.task import StageFailed, repro
from steptool.orchestration.graph.workspace import Workspace, alone, open_workspace
from steptool.orchestration.machines import CLONE_VARIABLE, GPU_LIMIT
from steptool.orchestration.machines.heartbeat import watched
from steptool.orchestration.machines.transfer import clean_command, transfer

LEASE_S = 60.0
"""How long the slot of a holder that was killed stays taken; Prefect takes no less."""
SLOT_POLL_S = 2.0
ORCHESTRATOR_LOST_S = 5.0
"""Silence after which nobody waits for the result: the stage ends within 10 s of its orchestrator."""


def run_requested_stage(stage: str, commit: str, params: str, lock: str, parent_run: str, *, again: bool) -> State:
    """Run one stage in this machine's clone, inside of a flow run. Its entry of dvc.lock, as JSON, is the message of
    the final state.

    commit: what to check out. params, lock: the texts of params.yaml and dvc.lock where the pipeline runs.
    parent_run: the MLflow run to hang the stage's run under. again: run it, changed or not.
    """
    clone = Path(os.environ.get(CLONE_VARIABLE, ".")).resolve()
    processes = Processes()
    with (
        # The outer one: the node must be heard of until all that the stage logged has been sent.
        watched(flow_run.id, ORCHESTRATOR_LOST_S, processes.stop) as ends,
        open_workspace(clone, parent_run, again=again, processes=processes) as workspace,
    ):
        try:
            with alone(clone, workspace.processes.pause):
                _run(workspace, stage, commit, params, lock)
                return Completed(message=json.dumps(lock_entry(clone, stage)))
        except Stopped:
            return ends[0]
        except StageFailed as fault:
            return Failed(
                name="Failed" if fault.stage_code is None else f"Exit {fault.stage_code}", message=fault.found
            )
        except TimeoutError as late:
            return Failed(name="TimedOut", message=str(late))


def _run(workspace: Workspace, stage: str, commit: str, params: str, lock: str) -> None:
    check_out(workspace, commit, params, lock)
    wanted = next(found for found in read_graph(workspace.root, [stage]) if found.address == stage)
    if wanted.folders:  # which are read whole: what a run with more rounds left in them would be read too
        workspace.run(*clean_command(wanted, "--quiet"))
    if wanted.inputs:
        transfer(workspace, "pull", *wanted.inputs)
    with _gpu_slot(workspace):
        repro(wanted, workspace)
    transfer(workspace, "push", stage)


def check_out(workspace: Workspace, commit: str, params: str, lock: str) -> None:
    """The code of the commit, the params and the state of the run."""
    # The clone is ours alone, so a lock that is there was left by a machine that went down.
    (workspace.root / ".git" / "index.lock").unlink(missing_ok=True)
    workspace.run("git", "fetch", "--quiet", "origin")
    workspace.run("git", "checkout", "--quiet", "--force", "--detach", commit)
    write_bytes(workspace.root / "params.yaml", params.encode())
    if lock:
        write_bytes(workspace.root / LOCK, lock.encode())
    else:
        (workspace.root / LOCK).unlink(missing_ok=True)


@contextmanager
def _gpu_slot(workspace: Workspace) -> Iterator[None]:
    """Hold one slot of the limit `gpu`, made with one slot where there is none.

    A lease that cannot be renewed, since the API is away, is no reason to end a training of hours.
    """
    _ensure_limit()
    waiting = False
    while True:
        slot = concurrency(
            GPU_LIMIT, occupy=1, max_retries=0, lease_duration=LEASE_S, raise_on_lease_renewal_failure=False
        )
        try:
            slot.__enter__()
            break
        except ConcurrencySlotAcquisitionError:
            if not waiting:
                get_run_logger().info("every GPU is taken; waiting for a slot of the limit %r", GPU_LIMIT)
            waiting = True
            workspace.processes.pause(SLOT_POLL_S)
    try:
        yield
    finally:
        try:
            slot.__exit__(None, None, None)
        except httpx.HTTPError as fault:
            get_run_logger().warning("the slot could not be given back, and ends with its lease: %s", fault)


def _ensure_limit() -> None:
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(GPU_LIMIT)
        except ObjectNotFound:
            try:
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_LIMIT, limit=1))
            except httpx.HTTPStatusError as refused:
                if refused.response.status_code != httpx.codes.CONFLICT:  # another node was faster
                    raise

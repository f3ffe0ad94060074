"""The orchestrator's side of a stage that runs on another machine; the other side is `machines.requested`."""

from __future__ import annotations

import json
import re
import subprocess
import time
from typing import Any

import httpx
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.deployments import run_deployment
from prefect.states import Cancelling, Completed, Crashed, State

from steptool.core.errors import StepToolError
from steptool.orchestration.graph.stages import LOCK, GraphStage, lock_text, merge_lock_entry
from steptool.orchestration.graph.task import NodeLost, StageCancelled, StageFailed, publish
from steptool.orchestration.graph.workspace import Workspace
from steptool.orchestration.machines.heartbeat import BEAT_S, NODE, ORCHESTRATOR, Pulse
from steptool.orchestration.machines.transfer import clean_command, transfer

LOST_RETRIES = 2
"""Times that a stage goes to another node when its own was lost, whatever its `meta` says of retries."""
NODE_LOST_S = 60.0
"""Silence after which a node that was at work counts as lost: longer than the network's usual trouble."""
START_S = 900.0
"""Longest that a node takes from accepting a stage to its first beat: an image to pull, a machine to start."""


@task(cache_policy=NO_CACHE, persist_result=False)
def run_remote_stage(stage: GraphStage, workspace: Workspace, deployment: str) -> State:
    """Run a stage through `deployment`, a deployment of `run_requested_stage`, unless it is up to date.

    Raises NodeLost where the node is gone, StageFailed where the stage failed there.
    """
    if not workspace.again and _is_up_to_date(stage, workspace):
        return Completed(name="Cached", message="nothing that it depends on has changed")
    commit = _committed(workspace, stage)
    _only_inputs(workspace, stage)
    if stage.inputs:
        transfer(workspace, "push", *stage.inputs)
    parameters = {
        "stage": stage.address,
        "commit": commit,
        "params": (workspace.root / "params.yaml").read_text(),
        "lock": lock_text(workspace.root),
        "parent_run": workspace.parent_run,
        "again": workspace.again,
    }
    run = run_deployment(deployment, parameters=parameters, flow_run_name=stage.address, timeout=0)
    get_run_logger().info("%s waits for a node, as flow run %s", stage.address, run.id)
    entry = _entry(_final_state(run.id, workspace), f"stage {stage.address} on {deployment}, flow run {run.id}")
    merge_lock_entry(workspace.root, stage.address, entry)
    transfer(workspace, "pull", stage.address)
    publish(stage, workspace.root)
    return Completed(message=f"ran on {deployment}")


def _final_state(run_id: Any, workspace: Workspace) -> State:
    """Wait for the node; when this wait is ended, by a cancellation or a fault, so is the node's run."""
    with get_client(sync_client=True) as client:
        pulse = Pulse(client, run_id, mine=ORCHESTRATOR, theirs=NODE)
        try:
            return _watch(client, run_id, pulse, workspace)
        except NodeLost as lost:
            _tell(client, run_id, Crashed(message=lost.found))
            raise
        except BaseException:
            _tell(client, run_id, Cancelling(message="the pipeline has ended"))
            raise


def _tell(client: SyncPrefectClient, run_id: Any, state: State) -> None:
    try:
        client.set_flow_run_state(run_id, state)
    except httpx.HTTPError as fault:
        # The node ends the stage all the same, once it hears nothing more from here.
        get_run_logger().warning("flow run %s could not be set to %s: %s", run_id, state.name, fault)


def _watch(client: SyncPrefectClient, run_id: Any, pulse: Pulse, workspace: Workspace) -> State:
    taken: float | None = None
    """When a worker took the run."""
    while True:
        run = pulse.beat()
        if run is not None and run.state is not None:
            if run.state.is_final():
                return run.state
            if taken is None and (run.state.is_pending() or run.state.is_running()):
                taken = time.monotonic()
        if pulse.silence_s > NODE_LOST_S:
            raise NodeLost(f"the node has been silent for {pulse.silence_s:.0f} s", where=f"flow run {run_id}")
        if taken is not None and not pulse.has_spoken and time.monotonic() - taken > START_S:
            raise NodeLost(f"the node took the stage and did not start it in {START_S:.0f} s", where=f"run {run_id}")
        workspace.processes.pause(BEAT_S)


def _entry(state: State, where: str) -> dict[str, Any]:
    """What a finished stage's entry of dvc.lock is. Raises what an unfinished one ended with."""
    message = state.message or ""
    if state.is_completed():
        entry: dict[str, Any] = json.loads(message)
        return entry
    if state.is_crashed():
        raise NodeLost(message or "its run crashed", where=where)
    if state.is_cancelled() or state.is_cancelling():
        raise StageCancelled(f"was cancelled: {message}", stage_code=None, where=where, fix="run the flow again")
    exited = re.fullmatch(r"Exit (-?\d+)", state.name or "")
    raise StageFailed(
        message,
        stage_code=int(exited[1]) if exited else None,
        where=where,
        fix="mend it and run the flow again; that flow run's log says more",
    )


def _is_up_to_date(stage: GraphStage, workspace: Workspace) -> bool:
    lines: list[str] = []
    workspace.dvc("status", "--json", stage.address, on_line=lines.append)
    return json.loads(lines[-1] if lines else "{}") == {}


def _only_inputs(workspace: Workspace, stage: GraphStage) -> None:
    """Raise StepToolError where a folder that the stage reads whole holds more than a node would have in it."""
    if not stage.folders:
        return
    lines: list[str] = []
    workspace.run(*clean_command(stage, "--dry-run", "--exclude=*.tmp"), on_line=lines.append)
    if extra := [line.removeprefix("Would remove ") for line in lines if line.startswith("Would remove ")]:
        folders = ", ".join(stage.folders)
        raise StepToolError(
            f"stage {stage.address} reads {folders} whole, with what no stage makes: {', '.join(extra)}",
            where=str(workspace.root),
            fix="move that away: a node would not have it, and what it makes would never be up to date here",
        )


def _committed(workspace: Workspace, stage: GraphStage) -> str:
    """The commit that the node is to check out: this one, which must hold all that the workspace holds."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=workspace.root, capture_output=True, text=True, check=True
        ).stdout.strip()

    changed = git("diff", "--name-only", "HEAD").splitlines()
    # Code that Git does not know yet would be missing there.
    changed += git("ls-files", "--others", "--exclude-standard", "--", *stage.sources, "*.py").splitlines()
    if unsent := sorted(set(changed) - {"params.yaml", LOCK}):
        raise StepToolError(
            f"changes that are not committed: {', '.join(unsent)}",
            where=str(workspace.root),
            fix="commit and push them, so that the node can check them out",
        )
    return git("rev-parse", "HEAD")

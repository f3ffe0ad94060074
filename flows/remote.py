"""The orchestrator's side of a stage that runs on another machine; see `flows.node`."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.deployments import run_deployment
from prefect.states import Completed, State

from flows.graph import LOCK, Node, merge_lock_entry
from flows.stage import publish
from flows.workspace import Workspace
from steptool.errors import StepToolError

POLL_S = 2.0


@task(cache_policy=NO_CACHE, persist_result=False)
def run_remote_stage(node: Node, workspace: Workspace, deployment: str) -> State:
    """Run a stage through `deployment`, a deployment of `flows.node.remote_stage`, unless it is up to date."""
    if not workspace.again and _is_up_to_date(node, workspace):
        return Completed(name="Cached", message="nothing that it depends on has changed")
    commit = _committed(workspace)
    if node.upstream:
        workspace.dvc("push", *node.upstream)
    lock = workspace.root / LOCK
    parameters = {
        "stage": node.address,
        "commit": commit,
        "params": (workspace.root / "params.yaml").read_text(),
        "lock": lock.read_text() if lock.exists() else "",
        "parent_run": workspace.parent_run,
        "again": workspace.again,
    }
    run: Any = run_deployment(
        deployment,
        parameters=parameters,
        flow_run_name=node.address,
        timeout=node.schedule.timeout.total_seconds() if node.schedule.timeout else None,
        poll_interval=POLL_S,
    )
    if run.state is None or not run.state.is_completed():
        raise StepToolError(
            f"its run on {deployment} ended as {run.state.name if run.state else 'unknown'}: "
            f"{run.state.message if run.state else ''}",
            where=f"stage {node.address}, flow run {run.id}",
            fix="look at that flow run's log",
        )
    merge_lock_entry(workspace.root, node.address, json.loads(run.state.message))
    workspace.dvc("pull", "--force", node.address)
    publish(node, workspace.root)
    return Completed(message=f"ran on {deployment}")


def _is_up_to_date(node: Node, workspace: Workspace) -> bool:
    lines: list[str] = []
    workspace.dvc("status", "--json", node.address, on_line=lines.append)
    return json.loads(lines[-1] if lines else "{}") == {}


def _committed(workspace: Workspace) -> str:
    """The commit that the node is to check out: this one, which must hold all that the workspace holds."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=workspace.root, capture_output=True, text=True, check=True
        ).stdout.strip()

    changed = [line[3:] for line in git("status", "--porcelain", "--untracked-files=no").splitlines()]
    if unsent := sorted(set(changed) - {"params.yaml", LOCK}):
        raise StepToolError(
            f"changes that are not committed: {', '.join(unsent)}",
            where=str(workspace.root),
            fix="commit and push them, so that the node can check them out",
        )
    return git("rev-parse", "HEAD")

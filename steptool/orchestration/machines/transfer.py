"""Data to and from the DVC remote, over a network that may be away for a while."""

from __future__ import annotations

from typing import Literal

from prefect import get_run_logger

from steptool.core.errors import StepToolError
from steptool.orchestration.graph.stages import GraphStage, has_remote
from steptool.orchestration.graph.workspace import Workspace, dvc_command

DELAYS_S = (2.0, 5.0, 15.0, 30.0, 60.0, 120.0, *(300.0,) * 20)
"""Between tries: a short cut costs seconds, and only one of two hours costs the result of a long training."""


def clean_command(stage: GraphStage, *options: str) -> list[str]:
    """`git clean` of all that is not the node's input from the folders that it reads whole; it must have some."""
    spared = [f"--exclude=/{path}" for path in stage.inputs]
    return ["git", "clean", "-ffdx", *options, *spared, "--", *stage.folders]


def transfer(workspace: Workspace, direction: Literal["pull", "push"], *targets: str) -> None:
    """`dvc pull` or `dvc push`, tried until it succeeds. What has arrived is not sent again, so a try resumes.

    Raises StepToolError after the last try, and at once where no remote is configured; Stopped as soon as the workspace
    is stopped.
    """
    if not has_remote(workspace.root):
        raise StepToolError(
            "no DVC remote is configured, so data cannot travel to and from nodes",
            where=str(workspace.root),
            fix="`dvc remote add --default NAME URL` and commit .dvc/config, which the nodes' clones read too",
        )
    command = dvc_command(direction, *(["--force"] if direction == "pull" else []), *targets)
    for delay in (*DELAYS_S, None):
        if workspace.attempt(*command) == 0:
            return
        if delay is None:
            break
        get_run_logger().warning("the DVC remote could not be reached; trying again in %g s", delay)
        workspace.processes.pause(delay)
    raise StepToolError(
        f"`dvc {direction} {' '.join(targets)}` failed {len(DELAYS_S) + 1} times",
        where=str(workspace.root),
        fix="check `dvc remote list` and the network; what was made is in the cache here",
    )

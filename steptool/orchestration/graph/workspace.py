"""A checkout that stages run in: the orchestrator's, or a node's clone."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout
from prefect import get_run_logger

from steptool.config.places import WORK
from steptool.core.errors import StepToolError
from steptool.orchestration.graph.process import Processes
from steptool.orchestration.graph.repro import stage_environment
from steptool.tracking.relay import Relay

LOCK_POLL_S = 1.0


@dataclass(frozen=True)
class Workspace:
    """Where the stages of a flow run work, and what they share."""

    root: Path
    parent_run: str
    """The MLflow run that the stages' runs hang under."""
    environment: dict[str, str]
    again: bool = False
    """Run every stage, changed or not."""
    processes: Processes = field(default_factory=Processes)
    accelerator: threading.Lock = field(default_factory=threading.Lock)
    """Held by a stage that asks for a GPU: one at a time on one machine, whose cores are its stand-in elsewhere."""

    @property
    def force(self) -> list[str]:
        """What to give `dvc repro` beside the stage."""
        return ["--force"] if self.again else []

    def attempt(
        self, *command: str, on_line: Callable[[str], None] | None = None, timeout_s: float | None = None
    ) -> int:
        """Run a command here; its exit status. Its lines go to `on_line`, by default the run's log."""
        return self.processes.run(
            command,
            cwd=self.root,
            environment=self.environment,
            on_line=on_line or get_run_logger().info,
            timeout_s=timeout_s,
        )

    def run(self, *command: str, on_line: Callable[[str], None] | None = None) -> None:
        """Run a command here. Raises StepToolError where it fails."""
        code = self.attempt(*command, on_line=on_line)
        if code != 0:
            raise StepToolError(
                f"`{' '.join(command)}` ended with {code}", where=str(self.root), fix="see the lines above in its log"
            )

    def dvc(self, *arguments: str, on_line: Callable[[str], None] | None = None) -> None:
        self.run(*dvc_command(*arguments), on_line=on_line)


def dvc_command(*arguments: str) -> list[str]:
    """DVC beside this Python. Its own patience for a lock is 3 s, and what loses that race is not recorded."""
    return [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]


@contextmanager
def open_workspace(
    root: Path, parent_run: str, *, again: bool = False, processes: Processes | None = None
) -> Iterator[Workspace]:
    """A workspace in which nothing runs any more at the end, and what its stages logged has been sent."""
    environment = stage_environment(parent_run, root) | {"PYTHONUNBUFFERED": "1"}
    workspace = Workspace(root, parent_run, environment, again, processes or Processes())
    with Relay(root):
        try:
            yield workspace
        finally:
            workspace.processes.stop()


@contextmanager
def alone(root: Path, pause: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Hold the checkout, waiting for another run to end. The kernel lets go of the lock when its holder is killed.

    `pause` is how to wait; what it raises ends the wait.
    """
    path = root / WORK / "pipeline.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    waiting = False
    while not lock.is_locked:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not waiting:
                get_run_logger().info("another run has this workspace; waiting for it to end")
            waiting = True
            pause(LOCK_POLL_S)
    try:
        yield
    finally:
        lock.release()

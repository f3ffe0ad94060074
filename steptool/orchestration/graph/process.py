"""One command, its lines passed on as they come, gone with all that it started when it is no longer wanted."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from steptool.system.supervisor import supervised

STOP_S = 8.0
"""Longest that stopping takes: the supervisor's grace, and a little."""


class Stopped(Exception):
    """The command was ended before its time."""


class Processes:
    """The commands of one flow run. `stop` ends them all, and lets none start after it."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def run(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        on_line: Callable[[str], None],
        timeout_s: float | None = None,
    ) -> int:
        """Run to the end; its exit status. Standard error goes the way of standard output.

        Raises Stopped after `stop`, TimeoutError past `timeout_s`; in both cases nothing of it is left.
        """
        with self._started(command, cwd, environment) as child:
            late = threading.Event()

            def end() -> None:
                late.set()
                _release(child)

            timer = threading.Timer(timeout_s, end) if timeout_s is not None else None
            if timer:
                timer.daemon = True
                timer.start()
            try:
                assert child.stdout is not None
                for line in child.stdout:
                    on_line(line.rstrip("\n"))
                code = child.wait()
            finally:
                if timer:
                    timer.cancel()
        if late.is_set():
            raise TimeoutError(f"took longer than {timeout_s:g} s")
        self.check()
        return code

    def check(self) -> None:
        """Raises Stopped after `stop`."""
        if self._stopped.is_set():
            raise Stopped

    def pause(self, seconds: float) -> None:
        """Wait, as between two tries. Raises Stopped as soon as `stop` is called."""
        self._stopped.wait(seconds)
        self.check()

    def stop(self) -> None:
        """End everything, within STOP_S seconds. May be called twice, and from any thread."""
        with self._lock:
            self._stopped.set()
            running = list(self._running)
        for child in running:
            _release(child)
        for child in running:
            child.wait(STOP_S)

    @contextmanager
    def _started(
        self, command: Sequence[str], cwd: Path, environment: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[str]]:
        with self._lock:
            self.check()
            child = subprocess.Popen(
                supervised(command),
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._running.add(child)
        try:
            yield child
        finally:
            _release(child)
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
            with self._lock:
                self._running.discard(child)


def _release(child: subprocess.Popen[str]) -> None:
    """Close the pipe that keeps the command alive."""
    if child.stdin is not None:
        child.stdin.close()

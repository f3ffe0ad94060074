"""A command's lines come as they are written, and nothing of it outlives its owner."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from steptool.orchestration.graph.process import Processes, Stopped

TREE = """
import subprocess, sys, signal
if "stubborn" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
deaf = "import time, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", deaf])
print(child.pid, flush=True)
child.wait()
"""
"""Starts a child that ignores SIGTERM, as a library's worker may, and says its id."""


def run(processes: Processes, *command: str, lines: list[str] | None = None, timeout_s: float | None = None) -> int:
    heard = lines if lines is not None else []
    return processes.run(command, cwd=Path.cwd(), environment=os.environ, on_line=heard.append, timeout_s=timeout_s)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_for(condition: object, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def test_lines_and_exit_status_are_passed_on() -> None:
    lines: list[str] = []
    script = "import sys; print('one'); sys.stdout.flush(); print('two', file=sys.stderr); sys.exit(7)"
    assert run(Processes(), sys.executable, "-c", script, lines=lines) == 7
    assert sorted(lines) == ["one", "two"]


def test_command_that_ends_leaves_no_child_behind() -> None:
    lines: list[str] = []
    script = TREE.replace("child.wait()", "")
    assert run(Processes(), sys.executable, "-c", script, lines=lines) == 0
    wait_for(lambda: gone(int(lines[0])))


@pytest.mark.parametrize("manner", ["polite", "stubborn"])
def test_stop_ends_the_whole_group_within_ten_seconds(manner: str) -> None:
    processes, lines, caught = Processes(), list[str](), list[BaseException]()

    def target() -> None:
        try:
            run(processes, sys.executable, "-c", TREE, manner, lines=lines)
        except Stopped as stopped:
            caught.append(stopped)

    thread = threading.Thread(target=target)
    thread.start()
    wait_for(lambda: lines)
    started = time.monotonic()
    processes.stop()
    thread.join(10)
    assert time.monotonic() - started < 10
    assert caught
    assert gone(int(lines[0]))
    with pytest.raises(Stopped):
        run(processes, "true")


def test_timeout_ends_the_whole_group() -> None:
    lines: list[str] = []
    with pytest.raises(TimeoutError, match=r"longer than 1\.5 s"):
        run(Processes(), sys.executable, "-c", TREE, lines=lines, timeout_s=1.5)
    assert gone(int(lines[0]))


def test_owner_killed_with_sigkill_takes_the_command_along(tmp_path: Path) -> None:
    owner = tmp_path / "owner.py"
    owner.write_text(
        "import os, sys\nfrom pathlib import Path\nfrom steptool.orchestration.graph.process import Processes\n"
        f"Processes().run([sys.executable, '-c', {TREE!r}, 'stubborn'], cwd=Path.cwd(), environment=os.environ,\n"
        "    on_line=lambda line: print(line, flush=True))\n"
    )
    child = subprocess.Popen([sys.executable, str(owner)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert child.stdout
    grandchild = int(child.stdout.readline())
    child.kill()
    child.wait()
    wait_for(lambda: gone(grandchild))

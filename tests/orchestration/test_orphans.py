"""However `steptool run` ends, DVC and the stages end with it, and the next run has DVC's lock.

steptool run ── supervisor ── dvc ── shell ── stage ── what the stage started
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.stages.test_external import ENVIRONMENT

# A stage of the project's own, which `steptool run` keeps when it writes the others.
GRAPH = """
stages:
  slow:
    cmd: sh -c 'trap "" {trapped}; sleep 600 & echo $! > child; wait; sleep 600'
    outs: [out.txt]
"""
PARAMS = "arms: {sft: {method: sft, from: base, data: [demonstrations]}}\n"


def until(true: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("trapped", ["TERM", "USR1"], ids=["stage ignores SIGTERM", "stage ends on SIGTERM"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_all_that_a_run_started_ends_with_it(tmp_path: Path, number: signal.Signals, trapped: str) -> None:
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, check=True)
    (tmp_path / "dvc.yaml").write_text(GRAPH.replace("{trapped}", trapped))
    (tmp_path / "params.yaml").write_text(PARAMS)
    environment = ENVIRONMENT | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    run = subprocess.Popen(
        [sys.executable, "-m", "steptool.cli", "run", "slow"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
    family = psutil.Process(run.pid).children(recursive=True)
    assert len(family) >= 4
    run.send_signal(number)
    said = run.communicate(timeout=30)[1]
    until(lambda: not any(process.is_running() for process in family), 10)
    assert run.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert number == signal.SIGKILL or "interrupted; run the same command again to go on" in said
    (tmp_path / "dvc.yaml").write_text("stages: {quick: {cmd: touch out.txt, outs: [out.txt]}}")
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=tmp_path, env=environment, check=True)

"""`steptool view`, in a process as a user has it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from steptool.commands.view import HOST, listening
from tests.report.viewer import project


def command(root: Path, *arguments: str) -> subprocess.Popen[str]:
    view = [sys.executable, "-m", "steptool.cli", "view", "--no-open", *arguments]
    return subprocess.Popen(view, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_it_says_where_the_page_is_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    process = command(project.write(tmp_path), "metrics")
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(2)]
    assert said[0] == "Evaluation: sft, ppo\n"
    address = re.search(r"http://127\.0\.0\.1:\d+/[\w-]{20,}/", said[1])
    assert address is not None, said
    with urlopen(address[0], timeout=30) as page:  # noqa: S310 - an address of this machine
        assert b"StepTool viewer" in page.read()
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(30) == 0
    assert process.communicate() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "nowhere: no such file or folder"),
        (("--port", "99999"), "port 99999 cannot be used"),
    ],
)
def test_what_cannot_be_shown_ends_it_with_a_fix(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    process = command(project.write(tmp_path), *arguments)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and said in errors and "fix:" in errors


def test_without_its_packages_it_says_what_to_install(tmp_path: Path) -> None:
    """As after `pip install steptool` without an extra."""
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError(\"No module named 'uvicorn'\")")
    process = command(project.write(tmp_path))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and "pip install 'steptool[cpu]'" in errors


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with listening(0) as taken:
        process = command(project.write(tmp_path), "--port", str(taken.getsockname()[1]))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and f"{HOST}: port" in errors

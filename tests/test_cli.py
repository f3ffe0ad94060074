"""How a command's process ends: with the exit status of what was done, and at once where it loaded triton.

registered at exit   main's own, first     what a package registers meanwhile
called at exit       last                  before it, so a package still sends what it holds
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = r"""
import atexit, os, sys
from steptool import cli

class Held:
    def __del__(self, write=os.write): write(1, b"looked through\n")

@cli.app.command()
def work(fail: str = "", triton: bool = True):
    sys.held = Held()
    if triton: sys.modules["triton"] = sys
    atexit.register(lambda: print("sent"))
    print("worked", end="")
    if fail: raise failures[fail]

failures = {"defect": RuntimeError("a defect"), "stop": KeyboardInterrupt()}
sys.argv = ["steptool", "work", *sys.argv[1:]]
cli.main()
"""


def ended(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_a_command_sends_what_it_holds_and_leaves_its_memory_as_it_is(tmp_path: Path) -> None:
    done = ended(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "workedsent\n", "")


def test_a_command_without_triton_ends_as_any_python_program_does(tmp_path: Path) -> None:
    done = ended(tmp_path, "--no-triton")
    assert (done.returncode, done.stdout, done.stderr) == (0, "workedsent\nlooked through\n", "")


def test_a_command_that_failed_does_so_with_its_own_status(tmp_path: Path) -> None:
    defect, stopped = (ended(tmp_path, "--fail", how) for how in ("defect", "stop"))
    assert (defect.returncode, defect.stdout, "RuntimeError: a defect" in defect.stderr) == (1, "workedsent\n", True)
    assert (stopped.returncode, stopped.stdout) == (130, "workedsent\n")
    assert stopped.stderr == "steptool: interrupted; run the same command again to go on\n"
    assert ended(tmp_path, "--mistyped").returncode == 2

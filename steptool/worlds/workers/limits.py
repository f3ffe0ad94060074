"""What a process may take, and how it ends with the one that started it. Linux does all of it; other systems some."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
ON_LINUX = sys.platform == "linux"


def end_with_parent(parent: int) -> None:
    """Have the system kill this process when its parent, `parent`, ends."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of every process below this one whose own parent ends."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def limit_memory(megabytes: int) -> None:
    """Let this process take so much more than it has. What is more raises MemoryError, or ends the process."""
    most = megabytes << 20
    if found := re.search(r"^VmData:\s+(\d+) kB", _status(), re.MULTILINE):
        most += int(found[1]) << 10
    with suppress(ValueError, OSError):  # the limit of this shell is lower
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def children() -> set[int]:
    """Processes whose parent is this thread's process. Empty where the system does not tell."""
    listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    return set(map(int, listed.read_text().split())) if listed.exists() else set()


def _status() -> str:
    return Path("/proc/self/status").read_text() if ON_LINUX else ""


def _prctl(option: int, value: int) -> None:
    if ON_LINUX:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)

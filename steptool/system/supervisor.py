"""Runs a command. When the process that asked for it ends, the command and all that it started end too.

    python -I …/steptool/supervisor.py dvc repro …    holds its standard input, a pipe that the owner keeps open

A worker that is killed -9 can clean nothing up, and a signal to `dvc` leaves the stage behind it running. The
end of the pipe is seen in every case: the kernel closes it. The command's whole process group then gets SIGTERM,
and SIGKILL once its grace has passed. It uses the standard library alone, so it starts at once.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence

GRACE_S = 5.0
"""Between SIGTERM and SIGKILL."""


def supervised(command: Sequence[str]) -> list[str]:
    """The command that runs `command` below a supervisor; with -I, no environment variable leads to other code."""
    return [sys.executable, "-I", __file__, *command]


def main(command: Sequence[str]) -> int:
    """Exit status of the command; 128 + n where signal n ended it."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    ended = os.pidfd_open(child.pid)
    # The owner ends a command by closing the pipe; a Ctrl-C at its terminal is the owner's to handle.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ready, _, _ = select.select([ended, sys.stdin.fileno()], [], [])
    if ended not in ready:
        _signal_group(child.pid, signal.SIGTERM)
        select.select([ended], [], [], GRACE_S)
    # What the command left behind in its group goes too: of a command that has ended, and of one that has not.
    _signal_group(child.pid, signal.SIGKILL)
    code = child.wait()
    return code if code >= 0 else 128 - code


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

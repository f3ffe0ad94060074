"""Run what others wrote (a model's chat template) in a child process, with a limit on its time and memory.

    value = bounded(lambda: render(template))      # raises TimeoutError, or ValueError where the child died

A limit inside this process would not do: one Jinja expression, `10 ** (10 ** 10)`, is one step of the interpreter
that no alarm interrupts, and `'a' * 10 ** 11` takes the memory of the whole run.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SECONDS = 10.0
MEMORY = 1 << 30
"""Bytes that the child may take beyond what this process holds."""


def bounded(make: Callable[[], Any], *, seconds: float = SECONDS, memory: int = MEMORY) -> Any:
    """What `make()` returns, which JSON must be able to hold. `make` runs in a forked child and changes nothing here.

    Raises TimeoutError where it runs longer than `seconds`, ValueError where the child dies without a result.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(make, sender, seconds, memory), daemon=True)
    child.start()
    sender.close()  # so that the end of the child is the end of the pipe
    try:
        if not receiver.poll(seconds):
            raise TimeoutError(f"it runs longer than {seconds:g} s")
        return json.loads(receiver.recv_bytes())
    except EOFError:
        child.join()
        raise ValueError(f"it ended with exit status {child.exitcode}") from None
    finally:
        child.kill()
        child.join()
        receiver.close()


def _run(make: Callable[[], Any], sender: Connection, seconds: float, memory: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then kills this child
    held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    _limit(resource.RLIMIT_AS, held + memory)
    _limit(resource.RLIMIT_CPU, math.ceil(seconds) + 1)  # ends the child also where the parent was killed
    _limit(resource.RLIMIT_CORE, 0)
    try:
        sender.send_bytes(json.dumps(make()).encode())
    except MemoryError:
        raise SystemExit(1) from None  # the parent says it in its own words


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))

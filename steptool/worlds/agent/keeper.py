"""The process that keeps the agent of one attempt: it starts it, keeps what it prints, and reports how it ended.

    {}                             it is there, and has what it needs
    {"query": "What does Dune cost?", "environment": {…}, "log": ".steptool/agent/t1-0.log"}
    {"status": 0, "answer": "9.5", "failed": null, "last": "the last line that it printed"}

SIGINT ends the agent: SIGTERM first, SIGKILL after a grace. Its orphans, in sessions of their own, too, are children of
this process; the fork server ends them with it.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from steptool.core.secrets import Secrets
from steptool.worlds.agent.acting import MAX_ANSWER, act, preload
from steptool.worlds.agent.output import Kept
from steptool.worlds.agent.program import Program
from steptool.worlds.workers.limits import adopt_orphans, end_with_parent

MAX_REPORT = 12 * MAX_ANSWER
"""Bytes of a report: JSON writes a character in at most as many."""
MAX_LOG = 256 << 10
"""Bytes of what an agent prints that are kept."""
GRACE_S = 1.0
"""Between SIGTERM and SIGKILL."""
MAX_LAST = 1000
"""Characters of the last line that it printed."""
CHUNK = 1 << 16


def prepare(settings: dict[str, Any]) -> Callable[[socket.socket, int], None]:
    """Import what agents of this kind import. See `steptool.worlds.workers.fork_server`."""
    os.environ.update(settings["environment"])
    preload(settings["preload"])
    return partial(run, program=Program(**settings["program"]), memory_mb=settings["memory_mb"])


def run(data: socket.socket, parent: int, *, program: Program, memory_mb: int) -> None:
    """Run one agent to its end, as `data` asks."""
    os.setpgid(0, 0)
    end_with_parent(parent)
    adopt_orphans()
    data.sendall(b"{}\n")
    with data.makefile("rb") as lines:
        request = json.loads(lines.readline())
    reply = _Agent(program, request, memory_mb, data).reply()
    data.sendall(json.dumps(reply).encode() + b"\n")


class _Agent:
    def __init__(self, program: Program, request: dict[str, Any], memory_mb: int, data: socket.socket) -> None:
        self._program, self._log = program, Path(request["log"])
        self._printed, self._answered, self._report = Kept(MAX_LOG), Kept(2 * MAX_ANSWER), b""
        self._secrets = Secrets()
        for variables in (dict(os.environ), request["environment"]):
            self._secrets.add_environment(variables)
        self._status: int | None = None
        self._kill_at: float | None = None
        self._events = selectors.DefaultSelector()
        self._woken, wake = socket.socketpair()
        self._woken.setblocking(False)
        wake.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        reading, writing = zip(*(os.pipe() for _ in range(3)), strict=True)
        keeper = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            signal.set_wakeup_fd(-1)
            for other in (data, self._woken, wake, self._events):
                other.close()
            for pipe in reading:
                os.close(pipe)
            act(program, request["query"], request["environment"], memory_mb, writing, keeper)
        signal.signal(signal.SIGINT, self._end)
        self._wake = wake  # closed, it would wake nobody
        for pipe in writing:
            os.close(pipe)
        for pipe, keep in zip(reading, (self._on_output, self._printed.add, self._on_report), strict=True):
            os.set_blocking(pipe, False)
            self._events.register(pipe, selectors.EVENT_READ, keep)
        self._events.register(self._woken, selectors.EVENT_READ)

    def reply(self) -> dict[str, Any]:
        """Wait until the agent has ended. What it has left behind may hold its pipes open, and is not waited for."""
        while self._status is None:
            left = None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())
            self._read(left)
            self._bury()
            if left == 0 and self._status is None:
                os.kill(self._pid, signal.SIGKILL)
                self._kill_at = None
        self._read(0)  # a pipe holds no more than a chunk
        printed = self._printed.without(self._secrets)
        if content := bytes(printed):
            with suppress(OSError):  # a full disk ends no attempt
                self._log.parent.mkdir(parents=True, exist_ok=True)
                self._log.touch(0o600)
                self._log.chmod(0o600)
                self._log.write_bytes(content)
        report = json.loads(self._report) if self._report.endswith(b"\n") else {}
        answer, failed = report.get("answer"), report.get("failed")
        if self._program.answer == "output" and self._program.command:
            answer = bytes(self._answered).decode("utf-8", "replace").strip() or None
        return {
            "status": self._status,
            "answer": answer,
            "failed": failed and self._secrets.hide(failed),
            "last": printed.last_line[:MAX_LAST],
        }

    def _read(self, timeout_s: float | None) -> None:
        """Read what is there, a chunk of each pipe; where nothing is, wait for it."""
        for key, _ in self._events.select(timeout_s):
            if key.fileobj is self._woken:
                self._woken.recv(CHUNK)
            elif data := os.read(key.fd, CHUNK):
                key.data(data)
            else:
                self._events.unregister(key.fd)

    def _bury(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._pid:
                    self._status = os.waitstatus_to_exitcode(ended[1])

    def _end(self, *_: object) -> None:
        if self._status is None:
            self._kill_at = time.monotonic() + GRACE_S
            os.kill(self._pid, signal.SIGTERM)

    def _on_output(self, data: bytes) -> None:
        self._printed.add(data)
        self._answered.add(data)

    def _on_report(self, data: bytes) -> None:
        self._report = (self._report + data)[:MAX_REPORT]

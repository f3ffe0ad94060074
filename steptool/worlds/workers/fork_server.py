"""A process that loads a team's code once, and forks a child for each attempt. Its arguments: FD SETTINGS.

What it loads and what a child does is for the function that the settings name as `prepare`: it gets the settings, and
returns the work of a child. Each byte that comes through FD brings two sockets. `data` goes to the child; `watch` stays
here, for what happens to it:

    in   i       interrupt what the child runs       (end)  kill the child, and every process that it has started
    out  {"status": -11}   how it ended, as `os.waitstatus_to_exitcode` has it, once all of these are gone
         {"failed": "…"}   there is no child: the code cannot be loaded

Where FD ends, everything here ends.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from steptool.core.errors import InputError
from steptool.worlds.workers.limits import adopt_orphans, children

INTERRUPT = b"i"
Work = Callable[[socket.socket, int], None]
"""What a child does: it gets `data`, and the process id of the fork server."""
MOST_ROUNDS = 1000
"""How often orphans are looked for that the killed ones leave, before that waits for the next child that ends."""


class ForkServer:
    def __init__(self, control: socket.socket, work: Work | None, failure: str) -> None:
        self._control, self._work, self._failure = control, work, failure
        self._watches: dict[int, socket.socket] = {}
        """By the child's process id."""
        self._events = selectors.DefaultSelector()
        self._is_over = False
        self._pid = os.getpid()
        self._own = children()
        """What the code started as it was imported."""
        self._woken, wake = socket.socketpair()
        self._woken.setblocking(False)
        wake.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.detach(), warn_on_full_buffer=False)

    def run(self) -> None:
        """Serve until the control socket is closed."""
        self._events.register(self._control, selectors.EVENT_READ, self._start)
        self._events.register(self._woken, selectors.EVENT_READ, self._bury)
        while not self._is_over:
            for key, _ in self._events.select():
                key.data()
        for pid in self._watches:
            _kill(pid)
        while self._watches:
            self._bury_one(os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT))
        self._own = set()
        self._kill_orphans()

    def _start(self) -> None:
        """Fork a child, or come to an end."""
        asked, sockets, _, _ = socket.recv_fds(self._control, 1, 2)
        if not asked:
            self._is_over = True
            return
        data, watch = (socket.socket(fileno=each) for each in sockets)
        with data:
            if self._work is None:
                _tell(watch, {"failed": self._failure})
                return
            try:
                pid = os.fork()
            except OSError as error:  # too many processes, or too little memory
                _tell(watch, {"failed": f"no process can be started: {error.strerror}"})
                return
            if pid == 0:
                self._become_child(data, watch)
        with suppress(OSError):  # it has done so by itself, and may have ended
            os.setpgid(pid, pid)
        watch.setblocking(False)
        self._watches[pid] = watch
        self._events.register(watch, selectors.EVENT_READ, partial(self._heed, pid))

    def _become_child(self, data: socket.socket, watch: socket.socket) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for other in (self._control, self._woken, watch, *self._watches.values()):
            other.close()
        self._events.close()
        status = 1
        try:
            assert self._work is not None
            self._work(data, self._pid)
            status = 0
        finally:
            os._exit(status)  # nothing of the fork server's is to run

    def _heed(self, pid: int) -> None:
        watch = self._watches.get(pid)
        if watch is None:  # it ended in this turn
            return
        try:
            asked = watch.recv(1)
        except BlockingIOError:
            return
        except ConnectionError:
            asked = b""
        if asked == INTERRUPT:
            os.kill(pid, signal.SIGINT)
        else:
            self._events.unregister(watch)
            _kill(pid)

    def _bury(self) -> None:
        with suppress(BlockingIOError):
            while self._woken.recv(4096):
                continue
        with suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                self._bury_one(ended)

    def _bury_one(self, ended: Any) -> None:
        """Its number is still taken, so that its group can be killed without hitting another."""
        pid = ended.si_pid
        if pid in self._watches:
            _kill(pid)
        _, status = os.waitpid(pid, 0)
        watch = self._watches.pop(pid, None)
        if watch is None:
            return
        self._kill_orphans()
        with suppress(KeyError, ValueError):
            self._events.unregister(watch)
        _tell(watch, {"status": os.waitstatus_to_exitcode(status)})

    def _kill_orphans(self) -> None:
        """Whatever an ended child had started, in groups and sessions of their own, too, is below this process now."""
        for _ in range(MOST_ROUNDS):
            orphans = children() - self._watches.keys() - self._own
            for orphan in orphans:
                with suppress(ProcessLookupError, ChildProcessError):
                    os.kill(orphan, signal.SIGKILL)
                    os.waitpid(orphan, 0)
            if not orphans:
                return


def _kill(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _tell(watch: socket.socket, message: dict[str, Any]) -> None:
    with suppress(OSError), watch:  # who asked for the child may be gone
        watch.sendall(json.dumps(message).encode() + b"\n")


def _end_with(control: socket.socket, imported: threading.Event) -> None:
    """Until the code is imported, which may take for ever: end this process once nobody is there any more."""
    control_end = selectors.DefaultSelector()
    control_end.register(control, selectors.EVENT_READ)
    while not imported.wait(0.2):
        if control_end.select(0) and not control.recv(1, socket.MSG_PEEK):
            os._exit(1)


def main() -> None:
    control, settings = socket.socket(fileno=int(sys.argv[1])), json.loads(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started this
    adopt_orphans()
    imported = threading.Event()
    waiting = threading.Thread(target=_end_with, args=(control, imported))
    waiting.start()
    work, failure = None, ""
    module, _, name = settings["prepare"].partition(":")
    try:
        work = getattr(importlib.import_module(module), name)(settings)
    except InputError as error:
        failure = error.found
    imported.set()
    waiting.join()
    gc.collect()
    gc.freeze()  # so that children do not write into the memory that they share
    ForkServer(control, work, failure).run()

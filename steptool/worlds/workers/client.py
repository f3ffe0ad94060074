"""The fork server and its children, as this process sees them."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from steptool.core.errors import WorldError

SERVER = """
import json, sys
sys.path[:] = json.loads(sys.argv[2])["path"]
from steptool.worlds.workers.fork_server import main
main()
"""
END_S = 5.0
"""How long the processes of an attempt may take to end once they are killed."""
BETWEEN_S = 0.02
"""Between two tries to ask for a child."""
MOST_GROWTH, MOST_BESIDE = 8, 1 << 16
"""A reply on the wire has at most this many bytes for each of its text, and these for the rest."""


class Ended(Exception):
    """A child is no more. The message says how it ended."""


@dataclass(frozen=True)
class Limits:
    """Of one attempt's process."""

    memory_mb: int = 1024
    """What it may take beside what the imported code took."""
    output_kb: int = 256
    """What is kept of a reply."""


class ForkServer:
    """Starts with `start`, or with the first child.

    `prepare` is called there with `settings`, which JSON holds, and returns what a child does (`fork_server`).
    `reply_kb`: the longest text of a reply.
    """

    def __init__(self, prepare: Callable[[dict[str, Any]], Any], settings: Mapping[str, Any], reply_kb: int) -> None:
        self._settings = {**settings, "prepare": f"{prepare.__module__}:{prepare.__qualname__}"}
        self._most = MOST_GROWTH * (reply_kb << 10) + MOST_BESIDE
        self._control: socket.socket | None = None
        self._close: weakref.finalize | None = None

    def start(self) -> socket.socket:
        """The socket that asks it for children. It loads the code while this process goes on."""
        if self._control is None:
            self._control, theirs = socket.socketpair()
            settings = json.dumps({**self._settings, "path": sys.path})
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-c", SERVER, str(theirs.fileno()), settings],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                    env={"PYTHONHASHSEED": "0", **os.environ},
                )
            self._control.setblocking(False)
            self._close = weakref.finalize(self, _end, process, self._control)
        return self._control

    async def worker(self) -> Worker:
        """A child for one attempt."""
        (ours, data), (watching, watch) = socket.socketpair(), socket.socketpair()
        with data, watch:
            while not self._sent(data, watch):
                await asyncio.sleep(BETWEEN_S)
        return Worker(
            await asyncio.open_connection(sock=ours, limit=self._most),
            await asyncio.open_connection(sock=watching),
        )

    def _sent(self, *sockets: socket.socket) -> bool:
        """Whether it has been asked for a child. It takes no more than some hundred at once."""
        files = [each.fileno() for each in sockets]
        try:
            socket.send_fds(self.start(), [b"+"], files)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ETOOMANYREFS):
                return False
            self.close()  # somebody killed it: the next one is new
            socket.send_fds(self.start(), [b"+"], files)
        return True

    def close(self) -> None:
        """End it and its children. May be called twice; a later child starts it again."""
        if self._close is not None:
            self._close()
        self._control = self._close = None


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Worker:
    """One child. It is for one event loop, and answers one request at a time."""

    def __init__(self, data: Streams, watch: Streams) -> None:
        self._replies, self._requests = data
        self._events, self._orders = watch

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Raises Ended where the child ends before it replies."""
        self._requests.write(json.dumps(request).encode() + b"\n")
        return await self.reply()

    async def reply(self) -> dict[str, Any]:
        """The reply to a request whose `ask` was cancelled. Raises Ended."""
        try:
            line = await self._replies.readline()
        except (ValueError, ConnectionError):  # longer than any reply; or it ended before it read the request
            line = b""
        if not line.endswith(b"\n"):
            raise Ended(await self.end())
        reply: dict[str, Any] = json.loads(line)
        return reply

    def interrupt(self) -> None:
        """End what it runs, as Ctrl-C would. The reply comes all the same, unless the code refuses."""
        self._orders.write(b"i")

    async def end(self) -> str:
        """Kill it, with every process that it has started, and say how it ended. Raises WorldError where it could not
        be started at all, or the fork server is gone."""
        try:
            with suppress(OSError):
                self._orders.write_eof()
            async with asyncio.timeout(END_S):
                told = await self._events.readline()
        except (TimeoutError, ConnectionError):
            told = b""
        finally:
            self.abandon()
        event = json.loads(told) if told else {"failed": "is gone"}
        if "failed" in event:
            fix = "see what is printed above, and what the module does"
            raise WorldError(event["failed"], where="the process of an attempt", fix=fix)
        return how_it_ended(int(event["status"]))

    def abandon(self) -> None:
        """Have it killed, and wait for nothing."""
        self._requests.close()
        self._orders.close()


def how_it_ended(status: int) -> str:
    """In words, as `os.waitstatus_to_exitcode` has it."""
    if status >= 0:
        return f"it ended its process with exit status {status}"
    known = {each.value: each.name for each in signal.Signals}
    return f"its process was ended by {known.get(-status, f'signal {-status}')}"


def _end(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    control.close()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

"""An event loop in a thread of its own, for what outlives one run of rollouts.

Each try of `sample` and `evaluate` runs on a loop that ends with it, but a connection belongs to the loop that it was
made on. What attempts share, an HTTP client, the server behind a connection or the gateway, lives here.

    rollouts' loop ── await run(work) ──► own loop: work, as a task of its own
                   ◄── result, or what it raised; a cancelled `run` cancels the work
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine
from threading import Lock, Thread
from typing import Any, TypeVar

Result = TypeVar("Result")

CLOSING_S = 10.0
"""How long what is still running may take to end: an MCP server gets some seconds to exit before it is killed."""


class OwnLoop:
    """Starts with the first work, and ends with `close`, at the latest with the process."""

    def __init__(self, name: str) -> None:
        self._name, self._starting = name, Lock()
        self._end: weakref.finalize[[asyncio.AbstractEventLoop, Thread], OwnLoop] | None = None
        self._loop: asyncio.AbstractEventLoop

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What `work` returns or raises. Where this is cancelled, the work is cancelled."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._started()))

    def wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The same for code that is not async."""
        return asyncio.run_coroutine_threadsafe(work, self._started()).result()

    def call(self, act: Callable[[], None]) -> None:
        """Call `act` on the loop soon, where it runs; nobody waits."""
        if self._end is not None and self._end.alive:
            self._loop.call_soon_threadsafe(act)

    def close(self) -> None:
        """Cancel what is running, and wait until it has ended, CLOSING_S at most. May be called twice."""
        if self._end is not None:
            self._end()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._end is None or not self._end.alive:
                self._loop = asyncio.new_event_loop()
                thread = Thread(target=_serve, args=(self._loop,), name=self._name, daemon=True)
                thread.start()
                self._end = weakref.finalize(self, _stop, self._loop, thread)
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:  # which at its end cancels what is left, and waits for it
        runner.get_loop().run_forever()


def _stop(loop: asyncio.AbstractEventLoop, thread: Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    thread.join(CLOSING_S)

"""A thread of its own for what an attempt runs, so that a function that blocks holds up nothing else.

All that one attempt runs, runs in one thread, coroutines too: a connection to SQLite, or a client that belongs to an
event loop, works only where it was made. A call that nobody waits for any more keeps its thread, which ends with it or
with the process, and the next call gets a new one.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from queue import SimpleQueue
from threading import Thread
from typing import Any


class Raised(Exception):
    """`fault` is what the work raised, of any kind: a SystemExit by itself would end the event loop."""

    def __init__(self, fault: BaseException) -> None:
        super().__init__()
        self.fault = fault


Job = tuple[Callable[[], Any], Callable[[Any], Any], "Future[Any]"]


class OwnThread:
    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job | None] | None = None

    async def run(self, work: Callable[[], Any], then: Callable[[Any], Any] = lambda value: value) -> Any:
        """`then` of what `work` returns, or of what that comes to when it is awaited; both run in the thread.

        Raises Raised with whatever they raise.
        """
        if self._jobs is None:
            self._jobs = SimpleQueue()
            Thread(target=_run_all, args=(self._jobs,), name="attempt", daemon=True).start()
        result: Future[Any] = Future()
        self._jobs.put((work, then, result))
        try:
            return await asyncio.wrap_future(result)
        except asyncio.CancelledError:
            self.end()
            raise

    def end(self) -> None:
        """End the thread once it has done what it was given."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None


def _run_all(jobs: SimpleQueue[Job | None]) -> None:
    with closing(asyncio.Runner()) as runner:
        while (job := jobs.get()) is not None:
            work, then, result = job
            if not result.set_running_or_notify_cancel():
                continue
            try:
                value = work()
                result.set_result(then(runner.run(_awaited(value)) if inspect.isawaitable(value) else value))
            except BaseException as fault:  # noqa: BLE001 - code of somebody else, which may raise anything
                result.set_exception(Raised(fault))


async def _awaited(value: Any) -> Any:
    return await value

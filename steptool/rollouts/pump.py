"""A thread that drives a batching engine, so that rollouts can await it.

    event loop      generate → inbox                     future resolved → tool call → generate → …
    worker thread   inbox → add · step · settle · step · settle → future

Requests join and leave the batch between steps, so one that waits for its tool holds up nobody. Before a
step the event loop gets a moment to settle: rollouts whose tools answer at once are in the very next batch,
and which requests share a batch does not depend on the speed of the two threads. Run again, the batches are
the same, and so are the tokens and the last bit of their log-probabilities.

The
backend is built, stepped and closed on the one thread: OpenMP keeps a team of threads for every caller,
and CUDA a context.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Event, Thread
from typing import Generic, Protocol, TypeVar

from steptool.rollouts.rollout import Generation

SETTLE_TURNS = 10
"""Turns of the event loop before a step: enough for a rollout to end and the next to ask for its first tokens."""
SETTLE_TIMEOUT_S = 0.5
"""How long the engine waits for that at most: a tool that blocks the event loop must not stop everything."""

logger = logging.getLogger(__name__)
Outcome = Generation | Exception


@dataclass(frozen=True)
class Request:
    prompt_ids: Sequence[int]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop_ids: Sequence[int]


class Backend(Protocol):
    """A batching engine. All of it is called on the worker thread."""

    def add(self, id: str, request: Request) -> None:
        """Queue a request; an exception refuses it."""
        ...

    def step(self) -> list[tuple[str, Generation]]:
        """Sample one token for each running request; returns those that ended."""
        ...

    def abort(self, ids: list[str]) -> None: ...

    def close(self) -> None: ...


B = TypeVar("B", bound=Backend)


@dataclass(frozen=True)
class _Submission:
    id: str
    request: Request
    reply: Callable[[Outcome], None]


@dataclass(frozen=True)
class _Cancel:
    id: str


@dataclass(frozen=True)
class _Work(Generic[B]):
    """Something to do with the backend once nothing is running."""

    act: Callable[[B], None]
    done: Future[None]


class Pump(Generic[B]):
    """Builds the backend on its own thread and drives it until `close`. Raises what `build` raises."""

    def __init__(self, build: Callable[[], B]) -> None:
        self._inbox: queue.SimpleQueue[_Submission | _Cancel | _Work[B] | None] = queue.SimpleQueue()
        self._running: dict[str, _Submission] = {}
        self._numbers = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None
        built: Future[None] = Future()
        self._thread = Thread(target=self._work, args=(build, built), name="engine", daemon=True)
        self._thread.start()
        built.result()

    async def generate(self, request: Request) -> Generation:
        """Cancelling the caller takes its request out of the batch."""
        loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Generation] = loop.create_future()

        def resolve(outcome: Outcome) -> None:
            if future.done():  # cancelled while its tokens were on the way
                return
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        def reply(outcome: Outcome) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is waiting
                loop.call_soon_threadsafe(resolve, outcome)

        submission = _Submission(str(next(self._numbers)), request, reply)
        self._put(submission)
        try:
            return await future
        except asyncio.CancelledError:
            self._inbox.put(_Cancel(submission.id))
            raise

    def between(self, act: Callable[[B], None]) -> None:
        """Run `act` on the worker thread after what is running has ended; raises what it raises."""
        work = _Work(act, Future())
        self._put(work)
        work.done.result()

    def close(self) -> None:
        """Close the backend and end the thread. Requests still running fail. May be called twice."""
        if self._thread.is_alive():
            self._inbox.put(None)
            self._thread.join()

    def _put(self, item: _Submission | _Work[B]) -> None:
        if not self._thread.is_alive():
            raise RuntimeError("the engine is closed")
        self._inbox.put(item)

    # What follows runs on the worker thread.

    def _work(self, build: Callable[[], B], built: Future[None]) -> None:
        try:
            backend = build()
        except BaseException as fault:  # noqa: BLE001 - raised again in the constructor
            built.set_exception(fault)
            return
        built.set_result(None)
        try:
            self._serve(backend)
        finally:
            closed = RuntimeError("the engine is closed")
            self._fail_running(closed)
            while not self._inbox.empty():
                left = self._inbox.get()
                if isinstance(left, _Submission):
                    left.reply(closed)
                elif isinstance(left, _Work):
                    left.done.set_exception(closed)
            backend.close()

    def _serve(self, backend: B) -> None:
        """Take what has come in, step while anything is running, sleep while nothing is."""
        settled = False
        while True:
            try:
                item = self._inbox.get(block=not self._running)
            except queue.Empty:
                if settled:
                    self._step(backend)
                else:
                    self._settle()
                settled = not settled
                continue
            if item is None:
                return
            if isinstance(item, _Submission):
                self._add(backend, item)
            elif isinstance(item, _Cancel):
                if self._running.pop(item.id, None):
                    backend.abort([item.id])
            else:
                while self._running:
                    self._step(backend)
                self._perform(backend, item)

    def _settle(self) -> None:
        """Wait until rollouts have done what they can with the results they were given."""
        loop, done = self._loop, Event()

        def turn(left: int) -> None:
            if left and loop:
                loop.call_soon(turn, left - 1)
            else:
                done.set()

        try:
            if loop:
                loop.call_soon_threadsafe(turn, SETTLE_TURNS)
        except RuntimeError:  # the loop has ended
            return
        done.wait(SETTLE_TIMEOUT_S)

    def _add(self, backend: B, submission: _Submission) -> None:
        try:
            backend.add(submission.id, submission.request)
        except Exception as fault:  # noqa: BLE001 - a request that is refused fails alone
            submission.reply(fault)
        else:
            self._running[submission.id] = submission

    def _step(self, backend: B) -> None:
        try:
            ended = backend.step()
        except Exception as fault:  # no telling whose fault: all that are running fail, the next may succeed
            logger.exception("the engine failed; %d requests are lost", len(self._running))
            backend.abort(list(self._running))
            self._fail_running(fault)
            return
        for id, generation in ended:
            if submission := self._running.pop(id, None):
                submission.reply(generation)

    def _perform(self, backend: B, work: _Work[B]) -> None:
        try:
            work.act(backend)
        except Exception as fault:  # noqa: BLE001 - raised again where the work was asked for
            work.done.set_exception(fault)
        else:
            work.done.set_result(None)

    def _fail_running(self, fault: Exception) -> None:
        for submission in self._running.values():
            submission.reply(fault)
        self._running.clear()

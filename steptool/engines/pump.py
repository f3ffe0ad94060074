"""A thread that drives a batching engine, so that rollouts can await it.

    event loop      generate → inbox                     future resolved → tool call → generate → …
    worker thread   inbox → add · step · settle · step · settle → all futures of a step

Requests join and leave the batch between steps, so one that waits for its tool holds up nobody. All
results of a step reach the event loop in one of its turns, and before the next step it gets a moment to settle:
rollouts whose tools answer at once are in the very next batch, and neither which requests share a batch nor their
order in it depends on the speed of the two threads. Run again, the batches are the same, and so are the tokens and
the last bit of their log-probabilities.

A failed step does not say which request it failed on. All requests that were running begin again, one half after
the other, and a half that fails is halved again: a request on which every step fails is found in log2(n) steps and is
the only one lost. After a fault that does not come back nothing is lost.

The backend is built, stepped and closed on the one thread: OpenMP keeps a team of threads for every caller,
and CUDA a context.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import queue
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, Generic, Protocol, TypeVar

from steptool.engines.base import Generation, Request

SETTLE_TURNS = 20
"""Turns of the event loop before a step. From the end of an attempt, whose session closes, to the first request of the
next one there are eight."""
SETTLE_TIMEOUT_S = 0.5
"""How long the engine waits for that at most: a tool that blocks the event loop must not stop everything."""
TRIES_ALONE = 3
"""Steps that may fail while a request runs alone, before it is lost."""
FAILURES_IN_A_ROW = 30
"""Steps that may fail without one between them that succeeds, before the engine is taken for broken and all that wait
for it are lost. To find one request among 2^20 takes 20, and TRIES_ALONE more."""

logger = logging.getLogger(__name__)
Outcome = Generation | Exception


class Backend(Protocol):
    """A batching engine. All of it is called on the worker thread."""

    def add(self, id: str, request: Request) -> None:
        """Queue a request; an exception refuses it."""
        ...

    def step(self) -> list[tuple[str, Generation]]:
        """Sample one token for each running request; returns those that ended."""
        ...

    def abort(self, ids: list[str]) -> None: ...

    def recover(self) -> None:
        """Called after a failed step and after all requests were aborted: let go of what that step left half done."""
        ...

    def close(self) -> None: ...


B = TypeVar("B", bound=Backend)
R = TypeVar("R")


@dataclass(eq=False)
class _Submission:
    request: Request
    future: asyncio.Future[Generation]
    failed_alone: int = 0

    def resolve(self, outcome: Outcome) -> None:
        """Called on the event loop of the future."""
        if self.future.done():  # cancelled while its tokens were on the way
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


def _reply(outcomes: Iterable[tuple[_Submission, Outcome]]) -> None:
    """Resolve all of them in one turn of their event loop: what rollouts ask for next then comes in the same order
    however fast this thread is."""

    def resolve(those: list[tuple[_Submission, Outcome]]) -> None:
        for submission, outcome in those:
            submission.resolve(outcome)

    for loop, those in itertools.groupby(outcomes, key=lambda one: one[0].future.get_loop()):
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is waiting
            loop.call_soon_threadsafe(resolve, list(those))


@dataclass(frozen=True)
class _Cancel:
    submission: _Submission


@dataclass(frozen=True)
class _Work(Generic[B]):
    """Something to do with the backend once nothing is running."""

    act: Callable[[B], Any]
    done: Future[Any]


class Pump(Generic[B]):
    """Builds the backend on its own thread and drives it until `close`. Raises what `build` raises."""

    def __init__(self, build: Callable[[], B]) -> None:
        self._inbox: queue.SimpleQueue[_Submission | _Cancel | _Work[B] | None] = queue.SimpleQueue()
        self._running: dict[str, _Submission] = {}
        self._held: list[list[_Submission]] = []
        """After a failed step, what has to wait: groups that run one after another, the last first. The first group
        are the requests that came meanwhile. Empty where nothing failed."""
        self._failures = 0
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
        submission = _Submission(request, future)
        self._put(submission)
        try:
            return await future
        except asyncio.CancelledError:
            self._inbox.put(_Cancel(submission))
            raise

    def between(self, act: Callable[[B], R]) -> R:
        """What `act` returns or raises, run on the worker thread after what is running has ended."""
        work = _Work(act, Future[R]())
        self._put(work)
        return work.done.result()

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
            self._fail_all(closed)
            while not self._inbox.empty():
                left = self._inbox.get()
                if isinstance(left, _Submission):
                    _reply([(left, closed)])
                elif isinstance(left, _Work):
                    left.done.set_exception(closed)
            backend.close()

    def _serve(self, backend: B) -> None:
        """Take what has come in, step while anything is running, sleep while nothing is."""
        settled = False
        while True:
            self._admit(backend)
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
                if self._held:
                    self._held[0].append(item)
                else:
                    self._add(backend, item)
            elif isinstance(item, _Cancel):
                self._cancel(backend, item.submission)
            else:
                while self._running or self._held:
                    self._admit(backend)
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
        id = str(next(self._numbers))
        try:
            backend.add(id, submission.request)
        except Exception as fault:  # noqa: BLE001 - a request that is refused fails alone
            _reply([(submission, fault)])
        else:
            self._running[id] = submission

    def _admit(self, backend: B) -> None:
        """Begin the next group that a failed step left waiting, once the one before it has ended."""
        while self._held and not self._running:
            for submission in self._held.pop():
                self._add(backend, submission)

    def _cancel(self, backend: B, submission: _Submission) -> None:
        for id, running in self._running.items():
            if running is submission:
                del self._running[id]
                backend.abort([id])
                return
        for group in self._held:
            if submission in group:
                group.remove(submission)

    def _step(self, backend: B) -> None:
        try:
            ended = backend.step()
        except Exception as fault:  # noqa: BLE001 - no telling whose fault it is
            self._begin_again(backend, fault)
            return
        self._failures = 0
        _reply([(self._running.pop(id), generation) for id, generation in ended if id in self._running])

    def _begin_again(self, backend: B, fault: Exception) -> None:
        """Put everything that was running back in line, in two halves; lose only what failed alone too often."""
        self._failures += 1
        lost = list(self._running.values())
        logger.warning("a step of the engine failed with %r; %d requests begin again", fault, len(lost))
        try:
            backend.abort(list(self._running))
            backend.recover()
        except Exception as second:  # noqa: BLE001 - replied to everyone who waits
            self._fail_all(second)
            return
        if self._failures == FAILURES_IN_A_ROW:
            self._failures = 0
            self._fail_all(fault)
            return
        self._running.clear()
        self._held = self._held or [[]]
        if len(lost) > 1:
            half = len(lost) // 2
            self._held += [lost[half:], lost[:half]]
            return
        for alone in lost:
            alone.failed_alone += 1
            if alone.failed_alone == TRIES_ALONE:
                _reply([(alone, fault)])
            else:
                self._held.append([alone])

    def _perform(self, backend: B, work: _Work[B]) -> None:
        try:
            done = work.act(backend)
        except Exception as fault:  # noqa: BLE001 - raised again where the work was asked for
            work.done.set_exception(fault)
        else:
            work.done.set_result(done)

    def _fail_all(self, fault: Exception) -> None:
        _reply([(submission, fault) for submission in itertools.chain(self._running.values(), *self._held)])
        self._running.clear()
        self._held.clear()

"""The pump with a backend that takes `max_tokens` steps for a request and samples its prompt's first token.

step      1     2     3     4
1 (4)     x     x     x     x  →
2 (1)           x  →                  joins and leaves between steps, while the first goes on
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steptool.engines.base import Generation, Request
from steptool.engines.pump import FAILURES_IN_A_ROW, TRIES_ALONE, Pump


class Countdown:
    def __init__(self) -> None:
        self.thread = threading.current_thread()
        self.running: dict[str, list[int]] = {}
        self.batches: list[int] = []
        self.aborted: list[str] = []
        self.recovered = 0
        self.closed = False
        self.before_step: Callable[[], None] = lambda: None

    def add(self, id: str, request: Request) -> None:
        if request.max_tokens < 1:
            raise ValueError("nothing to do")
        self.running[id] = [request.prompt_ids[0], request.max_tokens]

    def step(self) -> list[tuple[str, Generation]]:
        assert threading.current_thread() is self.thread
        self.before_step()
        self.batches.append(len(self.running))
        for state in self.running.values():
            state[1] -= 1
        ended = [id for id, (_, left) in self.running.items() if left == 0]
        return [(id, Generation((self.running.pop(id)[0],), (-1.0,), stopped=True)) for id in ended]

    def abort(self, ids: list[str]) -> None:
        self.aborted += ids
        for id in ids:
            self.running.pop(id, None)

    def recover(self) -> None:
        assert self.running == {}, "all requests are aborted first"
        self.recovered += 1

    def close(self) -> None:
        assert threading.current_thread() is self.thread
        self.closed = True


@pytest.fixture
def backend() -> Countdown:
    return Countdown()


@pytest.fixture
def pump(backend: Countdown) -> Iterator[Pump[Countdown]]:
    def build() -> Countdown:
        backend.thread = threading.current_thread()
        return backend

    running = Pump(build)
    yield running
    running.close()


def request(token: int, steps: int) -> Request:
    return Request((token,), max_tokens=steps, temperature=1.0, top_p=1.0, seed=0, stop_ids=())


async def all_of(pump: Pump[Countdown], *requests: Request) -> list[Any]:
    return await asyncio.gather(*(pump.generate(one) for one in requests), return_exceptions=True)


def test_everyone_gets_their_own(pump: Pump[Countdown]) -> None:
    made = asyncio.run(all_of(pump, *(request(token, 1 + token % 5) for token in range(100))))
    assert [one.ids for one in made] == [(token,) for token in range(100)]


def test_a_request_joins_and_leaves_while_another_is_running(pump: Pump[Countdown], backend: Countdown) -> None:
    """The first step is held until the second request is in the inbox."""
    begun, sent = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert sent.wait(timeout=10)

    async def main() -> list[tuple[int, ...]]:
        backend.before_step = hold
        slow = asyncio.create_task(pump.generate(request(1, 4)))
        while not begun.is_set():
            await asyncio.sleep(0)
        fast = asyncio.create_task(pump.generate(request(2, 1)))
        await asyncio.sleep(0)
        sent.set()
        return [(await slow).ids, (await fast).ids]

    assert asyncio.run(main()) == [(1,), (2,)]
    assert backend.batches == [1, 2, 1, 1]


def test_batches_do_not_depend_on_timing(pump: Pump[Countdown], backend: Countdown) -> None:
    """Three rollouts of two actions, at most two at once; each asks again as soon as it is answered:

    step      1     2     3     4
    1         x  →  x  →
    2         x     x  →  x     x  →
    3                     x  →  x  →      begins when 1 has ended, and is in the very next step
    """

    async def acts(token: int, slots: asyncio.Semaphore) -> None:
        async with slots:
            for _ in range(2):
                await pump.generate(request(token, 2 if token == 2 else 1))

    async def main() -> None:
        slots = asyncio.Semaphore(2)
        await asyncio.gather(*(acts(token, slots) for token in (1, 2, 3)))

    for _ in range(20):
        backend.batches.clear()
        asyncio.run(main())
        assert backend.batches == [2, 2, 2, 2]


def test_all_results_of_a_step_reach_the_event_loop_in_one_of_its_turns(
    pump: Pump[Countdown], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one, a rollout might ask for its next action before the others of the same step have their results. Here
    the event loop takes many turns between two calls of the engine's thread."""

    async def main() -> set[int]:
        loop = asyncio.get_running_loop()
        call = loop.call_soon_threadsafe

        def call_and_wait(*given: Any) -> Any:
            handle = call(*given)
            time.sleep(0.005)
            return handle

        monkeypatch.setattr(loop, "call_soon_threadsafe", call_and_wait)
        waiting = [asyncio.ensure_future(pump.generate(request(token, 3))) for token in range(5)]
        seen = {0}
        while 5 not in seen:
            await asyncio.sleep(0)
            seen.add(sum(one.done() for one in waiting))
        return seen

    assert asyncio.run(main()) == {0, 5}


def test_an_event_loop_that_is_blocked_does_not_stop_the_engine(
    pump: Pump[Countdown], backend: Countdown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steptool.engines.pump.SETTLE_TIMEOUT_S", 0.001)

    async def main() -> int:
        waiting = asyncio.create_task(pump.generate(request(1, 20)))
        while not backend.batches:
            await asyncio.sleep(0)
        time.sleep(0.3)
        taken = len(backend.batches)
        await waiting
        return taken

    assert asyncio.run(main()) == 20


def test_a_refused_request_fails_alone(pump: Pump[Countdown]) -> None:
    refused, made = asyncio.run(all_of(pump, request(1, 0), request(2, 1)))
    assert str(refused) == "nothing to do"
    assert made.ids == (2,)


def test_a_fault_that_does_not_come_back_costs_nobody_anything(pump: Pump[Countdown], backend: Countdown) -> None:
    """step      1     2     3     4     5     6     7
    1 2 3 4   x     x  fault
    1 2                   x     x     x  →
    3 4                                  x  …  →
    """
    faults = iter([None, None, RuntimeError("kernel failed")])

    def fail() -> None:
        if fault := next(faults, None):
            raise fault

    backend.before_step = fail
    made = asyncio.run(all_of(pump, *(request(token, 3) for token in range(4))))
    assert [one.ids for one in made] == [(0,), (1,), (2,), (3,)]
    assert backend.recovered == 1
    assert backend.batches == [4, 4, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("bad", [{0}, {77}, {127}, {3, 64}, {0, 1, 2, 125, 126, 127}])
def test_only_the_requests_that_no_step_survives_are_lost(
    pump: Pump[Countdown], backend: Countdown, bad: set[int]
) -> None:
    def fail() -> None:
        if any(token in bad for token, _ in backend.running.values()):
            raise RuntimeError("kernel failed")

    backend.before_step = fail
    made = asyncio.run(all_of(pump, *(request(token, 1 + token % 7) for token in range(128))))
    for token, one in enumerate(made):
        if token in bad:
            assert str(one) == "kernel failed"
        else:
            assert one.ids == (token,)
    assert backend.recovered <= len(bad) * (7 + TRIES_ALONE), "one is found in log2(128) steps"


def test_requests_that_come_during_a_recovery_wait_for_its_end(pump: Pump[Countdown], backend: Countdown) -> None:
    """A rollout whose first action was in the failed step asks for its second while the other half has yet to run."""
    faults = iter([RuntimeError("kernel failed")])

    def fail() -> None:
        if fault := next(faults, None):
            raise fault

    async def acts(token: int) -> list[tuple[int, ...]]:
        return [(await pump.generate(request(token, 2))).ids for _ in range(3)]

    async def main() -> list[list[tuple[int, ...]]]:
        return await asyncio.gather(*(acts(token) for token in range(4)))

    backend.before_step = fail
    assert asyncio.run(main()) == [[(token,)] * 3 for token in range(4)]
    assert backend.batches[:4] == [2, 2, 2, 2]


@given(faulty=st.sets(st.integers(0, 40), max_size=12), steps=st.lists(st.integers(1, 4), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_no_pattern_of_faults_leaves_anyone_without_a_reply(faulty: set[int], steps: list[int]) -> None:
    backend, taken = Countdown(), itertools.count()

    def fail() -> None:
        if next(taken) in faulty:
            raise RuntimeError("kernel failed")

    def build() -> Countdown:
        backend.thread = threading.current_thread()
        return backend

    backend.before_step = fail
    pump = Pump(build)
    try:
        made = asyncio.run(
            asyncio.wait_for(all_of(pump, *(request(token, n) for token, n in enumerate(steps))), timeout=20)
        )
    finally:
        pump.close()
    for token, one in enumerate(made):
        assert one.ids == (token,) if isinstance(one, Generation) else str(one) == "kernel failed"
    alone = sum(not isinstance(one, Generation) for one in made)
    assert alone * TRIES_ALONE <= len(faulty), "nobody is lost before it failed so often alone"


@pytest.mark.parametrize("where", ["step", "recover"])
def test_an_engine_that_is_broken_for_good_says_so_soon(pump: Pump[Countdown], backend: Countdown, where: str) -> None:
    def fail() -> None:
        raise RuntimeError("device lost")

    def give_up() -> None:
        raise RuntimeError("cannot recover")

    backend.before_step = fail
    if where == "recover":
        backend.recover = give_up  # type: ignore[method-assign]
    failed = asyncio.run(all_of(pump, *(request(token, 10**6) for token in range(500))))
    assert {str(fault) for fault in failed} == {"device lost" if where == "step" else "cannot recover"}
    assert backend.recovered <= FAILURES_IN_A_ROW
    backend.before_step = lambda: None
    assert asyncio.run(pump.generate(request(4, 2))).ids == (4,)


def test_work_waits_for_the_end_of_a_recovery(pump: Pump[Countdown], backend: Countdown) -> None:
    faults = iter([RuntimeError("kernel failed")])

    def fail() -> None:
        if fault := next(faults, None):
            raise fault

    async def main() -> tuple[list[Any], list[int]]:
        backend.before_step = fail
        waiting = asyncio.create_task(all_of(pump, *(request(token, 100) for token in range(4))))
        while not backend.recovered:
            await asyncio.sleep(0)
        left: list[int] = []
        await asyncio.to_thread(pump.between, lambda b: left.append(len(b.running)))
        return await waiting, left

    made, left = asyncio.run(main())
    assert [one.ids for one in made] == [(0,), (1,), (2,), (3,)]
    assert left == [0]


def test_closing_during_a_recovery_fails_what_is_held_too(pump: Pump[Countdown], backend: Countdown) -> None:
    faults = iter([RuntimeError("kernel failed")])

    def fail() -> None:
        if fault := next(faults, None):
            raise fault

    async def main() -> list[Any]:
        backend.before_step = fail
        waiting = asyncio.create_task(all_of(pump, *(request(token, 10**9) for token in range(4))))
        while not backend.recovered:
            await asyncio.sleep(0)
        await asyncio.to_thread(pump.close)
        return await waiting

    assert [str(fault) for fault in asyncio.run(main())] == ["the engine is closed"] * 4


def test_a_cancelled_request_leaves_the_batch(pump: Pump[Countdown], backend: Countdown) -> None:
    async def main() -> Generation:
        endless = asyncio.create_task(pump.generate(request(1, 10**9)))
        while not backend.batches:
            await asyncio.sleep(0)
        endless.cancel()
        return await pump.generate(request(2, 1))

    assert asyncio.run(main()).ids == (2,)
    pump.between(lambda _: None)
    assert backend.running == {}


def test_work_waits_until_nothing_is_running(pump: Pump[Countdown], backend: Countdown) -> None:
    async def main() -> tuple[Generation, int]:
        running = asyncio.create_task(pump.generate(request(1, 500)))
        while not backend.batches:
            await asyncio.sleep(0)
        left: list[int] = []
        await asyncio.to_thread(pump.between, lambda b: left.append(len(b.running)))
        return await running, left[0]

    made, left = asyncio.run(main())
    assert (made.ids, left) == ((1,), 0)


def test_a_fault_in_work_is_raised_where_it_was_asked_for(pump: Pump[Countdown]) -> None:
    def fail(_: Countdown) -> None:
        raise OSError("no weights")

    with pytest.raises(OSError, match="no weights"):
        pump.between(fail)
    assert asyncio.run(pump.generate(request(1, 1))).ids == (1,)


def test_a_fault_while_building_is_raised_by_the_constructor() -> None:
    def build() -> Countdown:
        raise OSError("no model")

    with pytest.raises(OSError, match="no model"):
        Pump(build)


def test_closing_fails_what_is_running_and_what_comes_later(pump: Pump[Countdown], backend: Countdown) -> None:
    async def main() -> list[Any]:
        waiting = asyncio.create_task(all_of(pump, request(1, 10**9)))
        while not backend.batches:
            await asyncio.sleep(0)
        await asyncio.to_thread(pump.close)
        return await waiting + await all_of(pump, request(2, 1))

    assert [str(fault) for fault in asyncio.run(main())] == ["the engine is closed"] * 2
    assert backend.closed
    pump.close()


def test_an_event_loop_that_ended_early_harms_nobody(pump: Pump[Countdown]) -> None:
    async def leave() -> None:
        asyncio.create_task(pump.generate(request(1, 50)))  # noqa: RUF006 - abandoned on purpose
        await asyncio.sleep(0)

    asyncio.run(leave())
    assert asyncio.run(pump.generate(request(2, 1))).ids == (2,)

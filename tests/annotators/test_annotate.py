"""Annotators of anybody, over a file of trajectories.

annotator                        then
scores a, b, c in any order      a, b, c
at most two at a time            never three
compares attempts at a task      is shown all of them together, however large a block is
is opened                        is ended, whatever happens
raises, exits, gives nonsense    StepToolError with file, trajectory, task and annotator
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from steptool.annotators.annotate import annotate_all, annotate_each, opened
from steptool.annotators.rules import Rules
from steptool.config.plugins import Use
from steptool.core.errors import DataError, StepToolError
from steptool.core.types import Judgement, Reference, ScoredTrajectory, Task, Trajectory
from steptool.testing import call, finish, judgement, reference, revision, step, task, trajectory

SOURCE = Path("data/trajectories/r1/trajectories.jsonl.gz")
TASKS = [task(f"t{index}") for index in range(5)]
MADE = [trajectory(step(call("find"), "{}"), finish(str(index)), of=each) for index, each in enumerate(TASKS)]
GOOD = (judgement(success=1, contribution=0.5), judgement(solved=1))


class Judge:
    def __init__(self, gives: Callable[[Trajectory], Awaitable[Any]]) -> None:
        self.gives = gives

    async def annotate(self, trajectory: Trajectory, task: Task, reference: Reference) -> Sequence[Judgement]:
        assert trajectory.task_id == task.id == reference.task_id
        given: Sequence[Judgement] = await self.gives(trajectory)
        return given


def annotate(
    gives: Callable[[Trajectory], Awaitable[Any]],
    made: Sequence[Trajectory] = MADE,
    known: Sequence[Task] = TASKS,
    concurrency: int = 2,
) -> list[ScoredTrajectory]:
    return annotate_all(
        Judge(gives),
        revision("mine"),
        made,
        TASKS,
        {each.id: reference(each) for each in known},
        source=SOURCE,
        what="annotate r1",
        concurrency=concurrency,
    )


def test_the_order_is_that_of_the_trajectories_whatever_takes_longer() -> None:
    async def gives(made: Trajectory) -> Sequence[Judgement]:
        await asyncio.sleep(0.02 / (1 + int(made.answer or 0)))
        return GOOD

    scored = annotate(gives, concurrency=5)
    assert [each.trajectory for each in scored] == MADE
    assert {each.annotator for each in scored} == {revision("mine")}


@pytest.mark.parametrize("concurrency", [1, 2, 5])
def test_no_more_are_in_flight_than_allowed_and_no_fewer(concurrency: int) -> None:
    at_once, most = 0, 0

    async def gives(made: Trajectory) -> Sequence[Judgement]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return GOOD

    annotate(gives, concurrency=concurrency)
    assert most == concurrency


class Compares(Judge):
    """Keeps what it was told to expect."""

    def __init__(self) -> None:
        async def gives(made: Trajectory) -> Sequence[Judgement]:
            return GOOD

        super().__init__(gives)
        self.told: list[str] = []

    def look_ahead(self, trajectories: Sequence[Trajectory]) -> None:
        self.told.append(" ".join(each.task_id for each in trajectories))


def attempts_at(tasks: str) -> list[Trajectory]:
    """As `a a b`, for tasks t0, t0, t1."""
    numbers = ["abcde".index(name) for name in tasks.split()]
    return [
        trajectory(step(call("find"), "{}"), finish(str(place)), of=TASKS[number])
        for place, number in enumerate(numbers)
    ]


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ("a a a b b c", ["t0 t0 t0", "t1 t1", "t2"]),  # blocks of 2, of which the first ends with its task
        ("a b b b c c d", ["t0 t1 t1 t1", "t2 t2", "t3"]),
        ("a a", ["t0 t0"]),
    ],
)
def test_a_block_ends_where_a_task_ends(made: str, told: list[str]) -> None:
    by, attempts = Compares(), attempts_at(made)
    found = annotate_each(
        by,
        revision("mine"),
        iter(attempts),
        TASKS,
        {each.id: reference(each) for each in TASKS},
        source=SOURCE,
        concurrency=2,
        advance=lambda count: None,
        block=2,
    )
    assert [each.trajectory for each in found] == attempts
    assert by.told == told


def test_attempts_that_are_all_at_hand_are_compared_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the runs of several policies, one file after the other."""
    monkeypatch.setattr("steptool.annotators.annotate.BLOCK", 2)
    by = Compares()
    known = {each.id: reference(each) for each in TASKS}
    made = attempts_at("a b c a b c")
    annotate_all(by, revision("mine"), made, TASKS, known, source=SOURCE, what="annotate", concurrency=2)
    assert by.told == ["t0 t1 t2 t0 t1 t2"]


class Holds(Rules):
    """Holds something that has to be ended."""

    held = 0

    def __init__(self, config: Rules.Config) -> None:
        super().__init__(config)
        Holds.held += 1

    def end(self) -> None:
        Holds.held -= 1


def test_what_an_annotator_started_ends_with_it() -> None:
    used = Use("annotate", "holds", f"{__name__}:Holds")
    with opened(used) as (annotator, by):
        assert Holds.held == 1 and isinstance(annotator, Holds) and by.name == "rules"
    assert Holds.held == 0
    with pytest.raises(StepToolError, match="went wrong"), opened(used):
        raise StepToolError("it went wrong")
    assert Holds.held == 0


@pytest.mark.parametrize("what", ["its task", "its reference"])
def test_a_trajectory_of_another_task_is_named_before_any_is_scored(what: str) -> None:
    asked = []

    async def gives(made: Trajectory) -> Sequence[Judgement]:
        asked.append(made)
        return GOOD

    stranger = trajectory(finish("x"), of="gone" if what == "its task" else "t4")
    with pytest.raises(DataError, match="its task is not among the 5") as refused:
        annotate(gives, [*MADE[:4], stranger], known=TASKS[:4])
    assert f"{SOURCE}: trajectory {stranger.id} of task {stranger.task_id}" in str(refused.value)
    assert not asked


def raising(fault: BaseException) -> Any:
    async def gives(made: Trajectory) -> Sequence[Judgement]:
        raise fault

    return gives


def giving(value: Any) -> Any:
    async def gives(made: Trajectory) -> Any:
        return value

    return gives


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("gives", "found"),
    [
        (raising(ValueError("no reply")), "annotator mine 1 failed: ValueError: no reply"),
        (raising(SystemExit(0)), "annotator mine 1 failed: SystemExit: 0"),
        (raising(Unprintable()), "annotator mine 1 failed: Unprintable"),
        (raising(StepToolError("quota used up", where="judge")), "judge: quota used up"),
        (giving(None), "annotator mine 1 failed: TypeError"),
        (giving(()), "gave no judgements of its steps: 2 steps but 0 judgements"),
        (giving(GOOD[::-1]), "step 0 needs success and contribution, not solved"),
        (giving(["good", "good"]), "gave no judgements of its steps"),
    ],
)
def test_an_annotator_that_fails_is_named_with_what_it_was_given(gives: Any, found: str) -> None:
    with pytest.raises(StepToolError, match=found) as refused:
        annotate(gives, MADE[:1])
    assert f"{SOURCE}: trajectory {MADE[0].id} of task t0" in str(refused.value)


def test_an_interrupt_is_no_fault_of_the_annotator() -> None:
    with pytest.raises(KeyboardInterrupt):
        annotate(raising(KeyboardInterrupt()), MADE[:1])

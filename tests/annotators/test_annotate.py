"""Annotators of anybody, over a file of trajectories.

annotator                        then
scores a, b, c in any order      a, b, c
at most two at a time            never three
raises, exits, gives nonsense    StepToolError with file, trajectory, task and annotator
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from steptool.annotators.annotate import annotate_all
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

"""Expert demonstrations: real observations, an exact share of flawed ones, habits in their contexts."""

from __future__ import annotations

import pytest

from steptool.core.errors import InputError
from steptool.core.types import Outcome, StopReason, Trajectory
from steptool.worlds.mini import MiniWorld

WORLD = MiniWorld(MiniWorld.Config(train_tasks=300, dev_tasks=6, test_tasks=6), seed=17)
TASKS = {task.id: task for task in WORLD.tasks("train")}


def _outcome(trajectory: Trajectory) -> Outcome:
    return WORLD.open(TASKS[trajectory.task_id], 0).outcome(trajectory.answer)


def _solved(trajectory: Trajectory) -> bool:
    return _outcome(trajectory).solved == 1.0


DEMONSTRATIONS = WORLD.demonstrations(260, 0.25, 5)


@pytest.mark.parametrize(
    ("count", "flawed", "unsolved"), [(260, 0.2, 52), (50, 0.5, 25), (33, 0.1, 3), (20, 0.0, 0), (20, 1.0, 20)]
)
def test_exactly_the_asked_share_ends_unsolved(count: int, flawed: float, unsolved: int) -> None:
    demonstrations = WORLD.demonstrations(count, flawed, 5)
    assert len({demonstration.task_id for demonstration in demonstrations}) == count
    assert sum(not _solved(demonstration) for demonstration in demonstrations) == unsolved


def test_observations_are_the_ones_that_the_world_gives() -> None:
    for demonstration in DEMONSTRATIONS:
        session = WORLD.open(TASKS[demonstration.task_id], 0)
        for step in demonstration.steps[:-1]:
            (call,) = step.action.calls
            assert step.observations == (session.reply(call),)
        assert demonstration.steps[-1].is_finish
        assert demonstration.steps[-1].observations == ()
        assert demonstration.outcome == _outcome(demonstration)
        assert demonstration.conditions is None
        assert len(demonstration.steps) <= 8
        assert not any(step.action_ids or step.context_ids for step in demonstration.steps)


def test_errors_that_pass_make_it_give_up_about_as_often_as_it_tries_again() -> None:
    """So imitation learns both, and a policy can find out which one pays. Other errors are recovered from."""
    cases = {case.task.id: case for case in WORLD.cases("train")}
    gave_up = {True: [0, 0], False: [0, 0]}
    for demonstration in DEMONSTRATIONS:
        hiccup = cases[demonstration.task_id].hiccup
        if hiccup:
            counts = gave_up[hiccup.kind in ("unavailable", "rate_limit")]
            counts[0] += demonstration.stop_reason is StopReason.gave_up
            counts[1] += 1
    assert 1 / 3 < gave_up[True][0] / gave_up[True][1] < 2 / 3
    assert gave_up[False][0] < gave_up[False][1] / 2


def test_some_tasks_of_two_parts_are_answered_from_the_first() -> None:
    cases = {case.task.id: case for case in WORLD.cases("train")}
    two_parts = [d for d in DEMONSTRATIONS if cases[d.task_id].shortcut and not cases[d.task_id].hiccup]
    lazy = [d for d in two_parts if len(d.steps) < len(cases[d.task_id].solution()) + 1]
    assert 0 < len(lazy) < len(two_parts) / 2
    assert not any(_solved(demonstration) for demonstration in lazy)


def test_same_seed_same_demonstrations_and_another_seed_other_ones() -> None:
    assert WORLD.demonstrations(260, 0.25, 5) == DEMONSTRATIONS
    assert WORLD.demonstrations(260, 0.25, 6) != DEMONSTRATIONS


def test_more_demonstrations_than_tasks_are_refused() -> None:
    with pytest.raises(InputError, match=r"demonstrations\.count: 301 is above world\.train_tasks: 300"):
        WORLD.demonstrations(301, 0.2, 5)

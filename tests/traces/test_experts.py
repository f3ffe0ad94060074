"""Demonstrations by a world's own experts.

world        experts   count   read
mini         yes       4       4 attempts at its first training tasks, 2 of them unsolved
mini         yes       7       refused: it has 6 training tasks
another      no        4       none
"""

from __future__ import annotations

import pytest

from steptool.core.errors import InputError
from steptool.core.types import Reference, Task
from steptool.traces.experts import Experts
from steptool.worlds.base import Session, Split
from steptool.worlds.mini import MiniWorld

WORLD = MiniWorld(MiniWorld.Config(train_tasks=6, dev_tasks=6, test_tasks=6), seed=17)
TASKS = {task.id: task for task in WORLD.tasks("train")}


class WithoutExperts:
    def tasks(self, split: Split) -> list[Task]:
        return WORLD.tasks(split)

    def reference(self, task: Task) -> Reference:
        return WORLD.reference(task)

    def open(self, task: Task, seed: int) -> Session:
        return WORLD.open(task, seed)


def experts(count: int) -> Experts:
    return Experts(Experts.Config(count=count, flawed=0.5))


def test_a_world_with_experts_shows_its_tasks() -> None:
    shown = list(experts(4).read(WORLD, TASKS, seed=5))
    assert [item.task_id for item in shown] == list(TASKS)[:4]
    assert sorted(item.outcome.solved or 0.0 for item in shown) == [0.0, 0.0, 1.0, 1.0]
    assert shown == WORLD.demonstrations(4, 0.5, seed=5)


def test_a_world_without_experts_shows_none() -> None:
    assert list(experts(4).read(WithoutExperts(), TASKS, seed=5)) == []


def test_more_than_the_world_can_show_are_refused() -> None:
    with pytest.raises(InputError, match=r"lower demonstrations\.count or raise world\.train_tasks"):
        experts(7).read(WORLD, TASKS, seed=5)

"""What a round samples: tasks, random numbers, settings."""

from __future__ import annotations

from collections.abc import Sequence

from steptool.config.places import DEMONSTRATIONS, REFERENCES, TASKS
from steptool.config.settings import Demonstrated, Params
from steptool.core.storage import read_jsonl
from steptool.core.types import Frozen, Reference, Task, Trajectory

ROUNDS_OF_A_DRAW = 97
"""More than anyone asks for; a prime, so that draws do not come back to the same tasks soon."""


class Prompts(Frozen):
    """What prompts.json of a sampled round holds."""

    shortened: dict[str, int]
    """What the format did not show in full, a line each, and in the prompts of how many tasks."""


def read_tasks(split: str) -> list[Task]:
    return read_jsonl(TASKS / f"{split}.jsonl", Task)


def read_references() -> dict[str, Reference]:
    """What is known of the tasks of every split, by the task's id."""
    return {reference.task_id: reference for reference in read_jsonl(REFERENCES, Reference)}


def draw_of_round(params: Params, index: int) -> int:
    """Number of round `index` (from 0) among those of all draws: it chooses the round's tasks and random numbers.

    It does not depend on how many rounds there are, so that another round leaves those before it as they are.
    """
    return params.sample.draw * ROUNDS_OF_A_DRAW + index


def tasks_of_round(params: Params, index: int) -> list[Task]:
    """Training tasks of round `index`."""
    shown, draw = read_jsonl(DEMONSTRATIONS, Trajectory), draw_of_round(params, index)
    return tasks_of_draw(read_tasks("train"), shown, draw, params.sample.tasks, params.sample.demonstrated)


def tasks_of_draw(
    tasks: Sequence[Task], shown: Sequence[Trajectory], draw: int, count: int, demonstrated: Demonstrated
) -> list[Task]:
    """At most `count` of `tasks`: each draw (from 0) the next ones; those of `shown` attempts stand last, or alike."""
    last = {demo.task_id for demo in shown} if demonstrated == "last" else set()
    ordered = sorted(tasks, key=lambda task: task.id in last)
    return [ordered[(draw * count + offset) % len(ordered)] for offset in range(min(count, len(ordered)))]

"""The tasks of a world, by split and by id, and what is said of one that it does not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from steptool.core.errors import WorldError
from steptool.core.types import Task
from steptool.worlds.base import SPLITS, Split

Item = TypeVar("Item")


class HasTask(Protocol):
    """A task with what its world knows of it."""

    @property
    def task(self) -> Task: ...


Case = TypeVar("Case", bound=HasTask)


def of_split(split: Split, splits: Mapping[Split, Sequence[Item]], where: str) -> list[Item]:
    """What a split has. Raises WorldError for one that is not there; it names `where`, such as `world mini`."""
    if split not in splits:
        raise WorldError(f"no split {split!r}", where=where, fix=f"name one of {', '.join(SPLITS)}")
    return list(splits[split])


def of_task(task: Task, by_id: Mapping[str, Item], where: str, made_from: str = "params.yaml") -> Item:
    """What belongs to a task. Raises WorldError for a task whose id is unknown; `made_from` is the file that the tasks
    depend on."""
    if task.id not in by_id:
        raise _of_another(task, where, made_from)
    return by_id[task.id]


def case_of(task: Task, cases: Mapping[str, Case], where: str) -> Case:
    """The case of exactly this task. Raises WorldError for one of which not all is as it is here."""
    case = of_task(task, cases, where)
    if case.task != task:
        raise _of_another(task, where)
    return case


def _of_another(task: Task, where: str, made_from: str = "params.yaml") -> WorldError:
    fix = f"make the tasks again from the present {made_from}: dvc repro prepare"
    return WorldError(f"task {task.id} is not one of this world's", where=where, fix=fix)

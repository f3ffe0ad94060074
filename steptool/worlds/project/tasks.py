"""The tasks of a project, one a line:

    {"query": "What does Dune cost?", "check": {"kind": "number", "expected": 9.5, "tolerance": 0.01}}
    {"query": "Order two copies of Dune.", "check": "is_ordered", "tools": ["search", "order"], "group": "orders"}

id         a name that no other task has; the number of the line, where there is none
tools      names of the tools that are offered; all of them, where none are named
group      the part of the tables that the task counts in; "all", where there is none
split      train, dev or test; tasks without one are dealt out
check      the right answer (kind text, number, set or judge), or the name of a function of the module that judges an
           attempt; without it the outcome of the task is unknown
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from steptool.core.errors import DataError
from steptool.core.storage import parse_record, parse_text, read_lines
from steptool.core.types import AnswerCheck, Frozen, content_hash
from steptool.worlds.base import SPLITS, Split

MISSING = "set world.tasks in params.yaml to a file that is there"
FIX = "mend this line; `python -m pydoc steptool.worlds.project.tasks` says what one holds"


class TaskLine(Frozen):
    id: str = ""
    query: str
    tools: tuple[str, ...] | None = None
    group: str = "all"
    split: Split | None = None
    check: AnswerCheck | str | None = None


def read_tasks(path: Path) -> dict[str, TaskLine]:
    """The tasks of a file by where they stand (`tasks.jsonl:3`), each with an id; empty lines are left out.

    Raises DataError that names the line.
    """
    found: dict[str, TaskLine] = {}
    lines = read_lines(path, missing=MISSING, broken="write the file again")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{path}:{number}"
            task = parse_record(parse_text(line, str(path), line=number, fix=FIX), TaskLine, where=where, fix=FIX)
            found[where] = task if task.id else task.model_copy(update={"id": str(number)})
    if not found:
        raise DataError("holds no task", where=str(path), fix="write one task a line")
    return found


def deal(tasks: Sequence[TaskLine], shares: Mapping[Split, float], seed: int) -> dict[Split, list[TaskLine]]:
    """The tasks by split, the groups of each in turn. Those that name no split are dealt out by `shares`, each group
    for itself, in an order that the seed and their ids decide; what is left of a group is for training."""
    splits = {task.id: task.split for task in tasks if task.split}
    for group in dict.fromkeys(task.group for task in tasks):
        ids = [task.id for task in tasks if task.group == group and not task.split]
        shuffled = sorted(ids, key=lambda task_id: content_hash([seed, task_id]))
        for split, share in shares.items():
            count = int(len(ids) * share + 0.5)
            splits |= dict.fromkeys(shuffled[:count], split)
            del shuffled[:count]
        splits |= dict.fromkeys(shuffled, "train")
    return {split: _in_turn([task for task in tasks if splits[task.id] == split]) for split in SPLITS}


def _in_turn(tasks: Sequence[TaskLine]) -> list[TaskLine]:
    by_group: dict[str, list[TaskLine]] = {}
    for task in tasks:
        by_group.setdefault(task.group, []).append(task)
    return [task for turn in zip_longest(*by_group.values()) for task in turn if task is not None]

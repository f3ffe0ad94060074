"""Trajectories of ours, of any stage, each with its task.

traces/NAME                                          tasks and tools lie beside them
data/trajectories/r1, data/scored/r1, …              tasks are those of `prepare`, in data/tasks
metrics/evaluation/ppo1.trajectories.jsonl.gz        a single file, the same way
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from steptool.config.places import TASKS
from steptool.core.errors import DataError, InputError
from steptool.core.storage import each_of_jsonl, read_jsonl, read_lines
from steptool.core.types import ScoredTrajectory, Task, Trajectory
from steptool.traces import folder as imported
from steptool.traces.tasks import as_tasks

NAMES = ("trajectories.jsonl.gz", "scored.jsonl.gz", "demonstrations.jsonl")
"""What the files of trajectories are called in the folder of a stage."""
_RESTORE = "run `dvc repro` or `steptool traces import` again, or restore it: dvc checkout"


def is_stored(source: Path) -> bool:
    """Whether it is a file of trajectories, or a folder with one."""
    return kind_of(source) in (Trajectory.__name__, ScoredTrajectory.__name__)


def kind_of(source: Path) -> str | None:
    """What the records of a file, or of that of a folder, are called; empty where it has none, None where no stage
    wrote it."""
    file = _file(source)
    return None if file is None else _kind(file)


def read(source: Path, tasks: Path | None = None) -> Iterator[tuple[Task | None, Trajectory]]:
    """In the order of the file; None where the task of one is not known.

    `tasks`: folder of the tasks of a stage, where it is not that of the project in the working directory.
    Raises InputError where there is no such file, DataError where it cannot be read.
    """
    file = _file(source)
    if file is None or not is_stored(source):
        fix = f"name a file of trajectories, or a folder with one of {', '.join(NAMES)}"
        raise InputError("holds no trajectories", where=str(source), fix=fix)
    known = _tasks(file.parent, tasks)
    for done in _trajectories(file):
        yield known.get(done.task_id), done


def scored(source: Path) -> list[ScoredTrajectory]:
    """The attempts of a file or a folder with their judgements; none where it holds attempts that nobody judged.

    Raises InputError where there is no such file, DataError where it cannot be read.
    """
    file = _file(source)
    if file is None or not is_stored(source):
        raise InputError("holds no trajectories", where=str(source), fix=f"name a file of them, such as {NAMES[1]}")
    return read_jsonl(file, ScoredTrajectory) if _kind(file) == ScoredTrajectory.__name__ else []


def _file(source: Path) -> Path | None:
    if os.path.isdir(source):  # where a path raises for a name that is too long
        return next((source / name for name in NAMES if (source / name).is_file()), None)
    return source if os.path.isfile(source) else None


def _kind(file: Path) -> str | None:
    """What its first line says that it holds; None for a file that `write_jsonl` did not write."""
    try:
        header = json.loads(next(read_lines(file, missing=_RESTORE, broken=_RESTORE), ""))
    except (DataError, ValueError, RecursionError):
        return None
    return str(header.get("kind", "")) if isinstance(header, dict) and "schema_version" in header else None


def _trajectories(file: Path) -> Iterator[Trajectory]:
    if _kind(file) == Trajectory.__name__:
        yield from each_of_jsonl(file, Trajectory, missing=_RESTORE, broken=_RESTORE)
    else:
        scored = each_of_jsonl(file, ScoredTrajectory, missing=_RESTORE, broken=_RESTORE)
        yield from (each.trajectory for each in scored)


def _tasks(beside: Path, given: Path | None) -> dict[str, Task]:
    if given is None and imported.is_imported(beside):
        return as_tasks(imported.tasks(beside), imported.tools(beside))
    folder = given or TASKS
    files = [file for split in ("train", "dev", "test") if os.path.isfile(file := folder / f"{split}.jsonl")]
    if not files:
        fix = "run this in the project, or name the folder with train.jsonl, dev.jsonl and test.jsonl"
        raise InputError("no tasks are there, of which these are attempts", where=str(folder), fix=fix)
    return {task.id: task for file in files for task in read_jsonl(file, Task)}

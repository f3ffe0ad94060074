"""The folder of `steptool traces import`, as a world, demonstrations and rounds read it.

tasks.jsonl              what was asked, a task a line (`steptool.worlds.project.tasks`)
tools.json               what was offered, a list of tools
trajectories.jsonl.gz    what was done: attempts without token ids
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from steptool.core.errors import DataError
from steptool.core.storage import file_hash, read_json, read_jsonl
from steptool.core.types import Tool, Trajectory, content_hash
from steptool.worlds.project.tasks import read_tasks

TASKS, TOOLS, TRAJECTORIES = "tasks.jsonl", "tools.json", "trajectories.jsonl.gz"
FIX = "write it: steptool traces import SOURCE --name NAME makes traces/NAME"


def read_tools(folder: Path) -> dict[str, Tool]:
    """By name. Raises DataError for a folder that is missing, or holds something else."""
    refuse_unless_imported(folder)
    try:
        tools = TypeAdapter(list[Tool]).validate_python(read_json(folder / TOOLS))
    except ValidationError as error:
        raise DataError("is no list of tools", where=str(folder / TOOLS), fix=FIX) from error
    return {tool.name: tool for tool in tools}


def read_attempts(folder: Path) -> list[tuple[str, Trajectory]]:
    """Every attempt with the question that it is about. Raises DataError for a folder that is missing or broken."""
    return list(_attempts(folder))


def _attempts(folder: Path) -> Iterator[tuple[str, Trajectory]]:
    refuse_unless_imported(folder)
    asked = {line.id: line.query for line in read_tasks(folder / TASKS).values()}
    for attempt in read_jsonl(folder / TRAJECTORIES, Trajectory):
        if attempt.task_id not in asked:
            found = f"attempt {attempt.id} is of task {attempt.task_id}, which {TASKS} does not have"
            raise DataError(found, where=str(folder / TRAJECTORIES), fix="import the traces again")
        yield asked[attempt.task_id], attempt


def content(folder: Path) -> str:
    """Hash of the folder, without the report of the import. Raises DataError where there is none."""
    refuse_unless_imported(folder)
    return f"traces {content_hash([file_hash(folder / name) for name in (TASKS, TOOLS, TRAJECTORIES)])}"


def refuse_unless_imported(folder: Path) -> None:
    """Raise DataError where a file of the folder is missing."""
    if missing := [name for name in (TASKS, TOOLS, TRAJECTORIES) if not (folder / name).is_file()]:
        raise DataError(f"holds no imported traces: it has no {missing[0]}", where=str(folder), fix=FIX)

"""An imported folder, `traces/NAME/`: what worlds, demonstrations and rounds read of it.

    tasks.jsonl             a task a line, as `worlds/project/tasks` has them; its check where the source has one
    tools.json              every tool that was offered or called
    trajectories.jsonl.gz   the attempts, without token ids; `policy` is the model that acted
    import.json             what was kept, merged and skipped, and why

It is written whole or not at all, and read as any other data.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from steptool.core.errors import DataError
from steptool.core.storage import (
    SCHEMA_VERSION,
    dumps,
    each_of_jsonl,
    file_hash,
    parse_text,
    read_lines,
    read_text,
    write_json,
)
from steptool.core.types import Tool, Trajectory, content_hash
from steptool.worlds.project.tasks import TaskLine, read_tasks

TASKS, TOOLS, TRAJECTORIES, REPORT = "tasks.jsonl", "tools.json", "trajectories.jsonl.gz", "import.json"
IMPORT_AGAIN = "run `steptool traces import` again"
_TOOLS: TypeAdapter[list[Tool]] = TypeAdapter(list[Tool])


def is_imported(folder: Path) -> bool:
    """Whether it has the files of an imported folder."""
    return all((folder / name).is_file() for name in (TASKS, TOOLS, TRAJECTORIES))


def content(folder: Path) -> str:
    """Hash of what is read of it, without the report of the import. Raises DataError for a file that is missing."""
    return content_hash([file_hash(folder / name) for name in (TASKS, TOOLS, TRAJECTORIES)])


def tasks(folder: Path) -> list[TaskLine]:
    """Raises DataError that names the line which is broken."""
    return list(read_tasks(folder / TASKS).values())


def tools(folder: Path) -> list[Tool]:
    """By name. Raises DataError where the file is missing or broken."""
    path = folder / TOOLS
    try:
        return _TOOLS.validate_python(parse_text(read_text(path), str(path), fix=IMPORT_AGAIN))
    except ValueError as error:
        raise DataError("holds no list of tools", where=str(path), fix=IMPORT_AGAIN) from error


def trajectories(folder: Path) -> list[Trajectory]:
    """In the order of the import. Raises DataError that names the line which is broken."""
    return list(each_trajectory(folder))


def attempts(folder: Path) -> Iterator[tuple[str, Trajectory]]:
    """Each with its question, in the order of the import, one after the other; those whose task was taken out of the
    file are left out.

    Raises DataError for a folder that is none, or is broken.
    """
    refuse_unless_imported(folder)
    asked = {line.id: line.query for line in tasks(folder)}
    for done in each_trajectory(folder):
        if done.task_id in asked:
            yield asked[done.task_id], done


def refuse_unless_imported(folder: Path) -> None:
    """Raise DataError for a folder that lacks one of the files."""
    if missing := [name for name in (TASKS, TOOLS, TRAJECTORIES) if not (folder / name).is_file()]:
        fix = "name a folder that `steptool traces import` has written, such as traces/log"
        raise DataError(f"holds no imported traces: there is no {missing[0]}", where=str(folder), fix=fix)


def each_trajectory(folder: Path) -> Iterator[Trajectory]:
    """Those of `trajectories`, one after the other."""
    return each_of_jsonl(folder / TRAJECTORIES, Trajectory, missing=IMPORT_AGAIN, broken=IMPORT_AGAIN)


def raw_tasks(folder: Path) -> list[dict[str, Any]]:
    """The lines of tasks as they are written, what the user changed in them included."""
    path = folder / TASKS
    lines = read_lines(path, missing=IMPORT_AGAIN, broken=IMPORT_AGAIN)
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    found = [parse_text(line, str(path), line=number, fix=IMPORT_AGAIN) for number, line in numbered]
    return [line | {"id": task.id} for line, task in zip(found, tasks(folder), strict=True)]


def write_trajectories(folder: Path, done: Iterable[Trajectory]) -> None:
    """One after the other, through a file that is not compressed: how many there are comes first."""
    rows, spool = 0, folder / "trajectories.tmp"
    with spool.open("w", encoding="utf-8") as file:
        for trajectory in done:
            file.write(dumps(trajectory) + "\n")
            rows += 1
    header = {"schema_version": SCHEMA_VERSION, "kind": Trajectory.__name__, "rows": rows}
    with (
        (folder / TRAJECTORIES).open("wb") as packed,
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0, compresslevel=6) as stream,
        spool.open("rb") as plain,
    ):
        stream.write((json.dumps(header) + "\n").encode())
        shutil.copyfileobj(plain, stream)
    spool.unlink()


def write_tasks(folder: Path, lines: Iterable[dict[str, Any]], offered: Iterable[Tool]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / TASKS).write_text(text, encoding="utf-8")
    write_json(folder / TOOLS, [tool.model_dump(mode="json") for tool in offered])

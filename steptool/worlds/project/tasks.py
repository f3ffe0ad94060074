"""The tasks of a project, one a line:

    {"query": "What does Dune cost?", "check": {"kind": "number", "expected": 9.5, "tolerance": 0.01}}
    {"query": "Order two copies of Dune.", "check": "is_ordered", "tools": ["search", "order"], "group": "orders"}

id         a name that no other task has; the number of the line, where there is none
tools      names of the tools that are offered; all of them, where none are named
group      the part of the tables that the task counts in; "tasks", where there is none
cluster    a name that tasks share which are solved or failed together, such as paraphrases or requests of one template:
           they go to the same split, and intervals count them as one draw
split      train, dev or test; tasks without one are dealt out
check      the right answer (kind text, number, set or judge), the name of a function of the project that judges an
           attempt, what a tool must reply at the end (kind state), or a list of these, of which all must hold
           (`steptool.worlds.project.checks`); without it the outcome of the task is unknown
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from steptool.core.errors import DataError
from steptool.core.storage import parse_record, parse_text, read_lines
from steptool.core.types import Frozen
from steptool.worlds.base import Split
from steptool.worlds.project.checks import Checks

MISSING = "set world.tasks in params.yaml to a file that is there"
WRITE_AGAIN = "write the file again"
FIX = "mend this line; `python -m pydoc steptool.worlds.project.tasks` says what one holds"


class TaskLine(Frozen):
    id: str = ""
    query: str
    tools: tuple[str, ...] | None = None
    group: str = "tasks"
    cluster: str = ""
    split: Split | None = None
    checks: Checks = Field(default=(), alias="check")

    @property
    def functions(self) -> list[str]:
        """The check functions that it names."""
        return [check for check in self.checks if isinstance(check, str)]


def read_tasks(path: Path) -> dict[str, TaskLine]:
    """The tasks of a file by where they stand (`tasks.jsonl:3`), each with an id; empty lines are left out.

    Raises DataError that names the line.
    """
    lines = read_lines(path, missing=MISSING, broken=WRITE_AGAIN)
    found = {
        f"{path}:{number}": read_line(line, path, number) for number, line in enumerate(lines, start=1) if line.strip()
    }
    if not found:
        raise DataError("holds no task", where=str(path), fix="write one task a line")
    return found


def read_line(line: str, path: Path, number: int) -> TaskLine:
    """The task of one line, its number as its id where it has none. Raises DataError that names the line."""
    value = parse_text(line, str(path), line=number, fix=FIX)
    task = parse_record(value, TaskLine, where=f"{path}:{number}", fix=FIX)
    return task if task.id else task.model_copy(update={"id": str(number)})

"""The lines of an imported folder's tasks, as a policy would see them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from steptool.core.types import Task, Tool
from steptool.worlds.project.tasks import TaskLine


def as_tasks(lines: Iterable[TaskLine], tools: Sequence[Tool]) -> dict[str, Task]:
    """By id; a line without tools offers all of them."""
    by_name = {tool.name: tool for tool in tools}
    return {
        line.id: Task(
            id=line.id,
            group=line.group,
            query=line.query,
            tools=tuple(by_name[name] for name in (by_name if line.tools is None else line.tools) if name in by_name),
        )
        for line in lines
    }

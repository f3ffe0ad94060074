"""A world of a project's own tools and tasks. Where the tools come from is for the classes that inherit from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import model_validator

from steptool.core.errors import DataError, WorldError
from steptool.core.fields import Fraction, Outside, Settings
from steptool.core.storage import file_hash
from steptool.core.types import AnswerCheck, Reference, Task
from steptool.worlds.base import Split
from steptool.worlds.project.session import ProjectSession
from steptool.worlds.project.tasks import MISSING, TaskLine, deal, read_tasks
from steptool.worlds.project.toolbox import Toolbox


class ProjectSettings(Settings):
    """What the worlds of a project's own tools are set to, wherever the tools come from."""

    tasks: Outside = "tasks.jsonl"
    dev_share: Fraction = 0.2
    """Share of the tasks without a `split` that are for dev."""
    test_share: Fraction = 0.3
    """Share of these that are for test; the others are for training."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dev_share + self.test_share >= 1:
            raise ValueError("dev_share and test_share leave nothing for training")
        return self


class ProjectWorld:
    """Reads the tasks when it is created. `seed` deals those out that name no split.

    Raises DataError for a task that cannot be one; it names the line.
    """

    def __init__(self, config: ProjectSettings, seed: int, toolbox: Toolbox) -> None:
        self.config = config
        self.toolbox = toolbox
        lines = read_tasks(Path(config.tasks))
        self._checks: dict[str, AnswerCheck | str | None] = {}
        made = {}
        for where, line in lines.items():
            if line.id in made:
                raise DataError(f"another line has the id {line.id!r} too", where=where, fix="give each its own id")
            made[line.id] = self._task(line, where)
            self._checks[line.id] = line.check
        dealt = deal(list(lines.values()), {"test": config.test_share, "dev": config.dev_share}, seed)
        if empty := [split for split in ("train", "test") if not dealt[split]]:
            raise DataError(
                f"{len(lines)} tasks leave none for {' and '.join(empty)}",
                where=config.tasks,
                fix="write more tasks, or give each its `split`",
            )
        self._tasks: Mapping[Split, list[Task]] = {
            split: [made[line.id] for line in found] for split, found in dealt.items()
        }

    @staticmethod
    def tasks_content(config: ProjectSettings) -> str:
        """Hash of the tasks. Raises DataError where their file is missing."""
        path = Path(config.tasks)
        if not path.is_file():
            raise DataError("no such file", where=str(path), fix=MISSING)
        return f"tasks {file_hash(path)}"

    def tasks(self, split: Split) -> list[Task]:
        """Every task of a split, its groups in turn."""
        return self._tasks[split]

    def reference(self, task: Task) -> Reference:
        check = self._check_of(task)
        if isinstance(check, AnswerCheck):
            return Reference(task_id=task.id, answer_check=check)
        return Reference(task_id=task.id, has_own_check=check is not None)

    def open(self, task: Task, seed: int) -> ProjectSession:
        """A fresh session. `seed` changes nothing: the tools alone decide what they answer."""
        return ProjectSession(task, self.toolbox.connect(), self._check_of(task))

    def _task(self, line: TaskLine, where: str) -> Task:
        tools = self.toolbox.tools
        names = tools if line.tools is None else line.tools
        if unknown := [name for name in names if name not in tools]:
            raise DataError(f"no tool is called {unknown[0]!r}", where=where, fix=f"name some of {', '.join(tools)}")
        return Task(id=line.id, group=line.group, query=line.query, tools=tuple(tools[name] for name in names))

    def _check_of(self, task: Task) -> AnswerCheck | str | None:
        if task.id not in self._checks:
            raise WorldError(
                f"task {task.id} is not one of this world's",
                where=f"world {getattr(self, 'name', '')}",
                fix=f"make the tasks again from the present {self.config.tasks}: dvc repro prepare",
            )
        return self._checks[task.id]

"""The world `toollens`: queries that need several tools, among others that do not help.

A task offers the tools that help and as many others as `offered` says, in an order of its own. Tools do nothing: what
counts is which are called. Solved: the attempt answers, and all that help are among the first `within` different tools
that it calls. Groups are by how many
help: `needs_3`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from steptool.core.errors import DataError
from steptool.core.fields import Many, Natural, Outside, Settings
from steptool.core.storage import file_hash
from steptool.core.types import Observation, Outcome, Reference, Task, Tool, ToolCall, content_hash
from steptool.worlds.base import SPLITS, Split
from steptool.worlds.in_turn import in_turn
from steptool.worlds.lookup import of_split, of_task
from steptool.worlds.toollens.files import SET_PATH, Asked, files, read_queries, read_tools
from steptool.worlds.toollens.metrics import OF_TOOLS, written_gains

CALLED = Observation(text=json.dumps({"error": "", "response": "The tool was called."}))


class ToolLensWorld:
    """Raises DataError for a folder that is not named, and for files that are missing or broken."""

    name: ClassVar[str] = "toollens"
    metrics: ClassVar[Mapping[str, Mapping[str, Any]]] = OF_TOOLS

    class Config(Settings):
        path: Outside = ""
        """Folder of the benchmark."""
        offered: Many = 20
        """Tools of a task, those that help included, which are offered all."""
        within: Many = 5
        """Different tools among which all that help must be, the first ones that are called."""
        train_tasks: Natural | None = None
        """The first ones; all where it is null. So for the other two."""
        dev_tasks: Natural | None = None
        test_tasks: Natural | None = None

    def __init__(self, config: Config, seed: int) -> None:
        """`seed` decides which other tools a task offers, and their order."""
        self.config, self.seed = config, seed
        folder = _folder(config)
        files(folder)
        self._tools = read_tools(folder)
        self._asked = {each.id: each for each in read_queries(folder, self._tools)}
        most = {"train": config.train_tasks, "dev": config.dev_tasks, "test": config.test_tasks}
        self._splits = {split: self._tasks(split, most[split]) for split in SPLITS}

    @staticmethod
    def content(config: Config) -> str:
        """Hash of the files. Raises DataError where one is missing."""
        return f"files {content_hash([file_hash(file) for file in files(_folder(config))])}"

    def tasks(self, split: Split) -> list[Task]:
        """Raises WorldError for a split that is not train, dev or test."""
        return of_split(split, self._splits, "world toollens")

    def reference(self, task: Task) -> Reference:
        grades = self._grades(task)
        return Reference(task_id=task.id, has_own_check=True, relevant_tools=tuple(grades))

    def open(self, task: Task, seed: int) -> ToolLensSession:
        return ToolLensSession(task, self._grades(task), self.config.within)

    def _tasks(self, split: Split, most: int | None) -> list[Task]:
        found = (each for each in self._asked.values() if each.split == split)
        return [self._task(each) for each in in_turn(found, lambda each: len(each.grades))[:most]]

    def _task(self, asked: Asked) -> Task:
        rng = random.Random(f"{self.seed} {asked.id}")
        others = [id for id in self._tools if id not in asked.grades]
        wanted = min(len(others), max(0, self.config.offered - len(asked.grades)))
        ids = [*asked.grades, *rng.sample(others, wanted)]
        rng.shuffle(ids)
        tools: tuple[Tool, ...] = tuple(self._tools[id] for id in ids)
        return Task(id=asked.id, group=f"needs_{len(asked.grades)}", query=asked.query, tools=tools)

    def _grades(self, task: Task) -> dict[str, int]:
        """Of the tools that help, by name, best first. Raises WorldError for a task that is not of this world."""
        grades = of_task(task, self._asked, "world toollens").grades
        return {self._tools[id].name: grades[id] for id in sorted(grades, key=lambda id: -grades[id])}


class ToolLensSession:
    def __init__(self, task: Task, grades: Mapping[str, int], within: int, called: Iterable[str] = ()) -> None:
        self._task, self._grades, self._within = task, grades, within
        self._called = dict.fromkeys(called)

    def fork(self) -> ToolLensSession:
        return ToolLensSession(self._task, self._grades, self._within, self._called)

    async def call(self, call: ToolCall) -> Observation:
        if self._task.tool(call.name) is None:
            return Observation(text=json.dumps({"error": f"no tool {call.name}"}), error="unknown_tool")
        self._called[call.name] = None
        return CALLED

    async def say(self, message: str) -> str | None:
        """None: nobody answers."""
        return None

    async def close(self, answer: str | None) -> Outcome:
        first = list(self._called)[: self._within]
        found = [name for name in first if name in self._grades]
        gains = written_gains([self._grades.get(name, 0) for name in self._called], list(self._grades.values()))
        said = f"{len(found)} of {len(self._grades)} relevant tools among the first {self._within} called; {gains}"
        return Outcome(solved=float(len(found) == len(self._grades) and answer is not None), evidence=said)


def _folder(config: ToolLensWorld.Config) -> Path:
    if not config.path:
        raise DataError("its folder is not named", where="world toollens", fix=SET_PATH)
    return Path(config.path)

"""What the worlds `toolbench` and `http` share: requests of a folder, split, and attempts at them. Who replies differs.

Groups are the six subsets. Whether an answer is right only a judge can tell; how often attempts finish, and what they
call, counts anyway. The evidence of an outcome says where the replies came from.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import Field

from steptool.core.errors import DataError, InputError
from steptool.core.fields import Natural, Outside, Positive, Settings, Text
from steptool.core.types import Observation, Outcome, Reference, Task, ToolCall
from steptool.worlds.base import Split
from steptool.worlds.in_turn import in_turn
from steptool.worlds.lookup import of_split, of_task
from steptool.worlds.toolbench.library import Library
from steptool.worlds.toolbench.names import Api
from steptool.worlds.toolbench.pack import VARIABLE
from steptool.worlds.toolbench.replies import MAX_SHOWN, Reply, Source, missing, mix
from steptool.worlds.toolbench.requests import Request


class Counter(Protocol):
    """Whoever replies to calls: a desk, or a server."""

    async def reply(self, api: Api, arguments: Mapping[str, object]) -> Reply: ...

    def close(self) -> None: ...


class RequestSettings(Settings):
    """Which requests, and how they are split: the first ones, from the subsets in turn, are for training."""

    path: Outside = ""
    """Folder of a pack, or of StableToolBench's folders; empty takes the environment variable STEPTOOL_RECORDED."""
    subsets: list[Text] = Field(default_factory=list)
    """Only these; all where it is empty."""
    train_tasks: Natural = 0
    dev_tasks: Natural = 0
    test_tasks: Positive | None = None
    """All that are left where it is null."""
    max_shown: Positive = MAX_SHOWN
    """Characters of a reply that a policy is shown; `...` follows."""


class RequestWorld:
    """Raises DataError where its folder is not named, or holds nothing, InputError where there are fewer requests than
    asked for."""

    name: ClassVar[str]
    counter: Counter
    """Set by the world itself."""

    def __init__(self, config: RequestSettings) -> None:
        self.config: Any = config
        self.library = _library(config)
        found = [each for each in self.library.requests if each.subset in (config.subsets or [each.subset])]
        self._by_id: dict[str, Request] = {each.id: each for each in found}
        tasks = in_turn((each.task for each in found), lambda task: task.group)
        held_out = config.train_tasks + config.dev_tasks
        last = len(tasks) if config.test_tasks is None else held_out + config.test_tasks
        if held_out >= len(tasks) or last > len(tasks):
            there = ", ".join(sorted({each.subset for each in self.library.requests})) or "no subset"
            raise InputError(
                f"{len(tasks)} requests are there, of {there}; asked for are {max(last, held_out + 1)}",
                where=f"params.yaml, world.train_tasks, dev_tasks, test_tasks and subsets, of {self.library.folder}",
                fix="lower these numbers, or name other subsets",
            )
        self._splits: dict[Split, list[Task]] = {
            "train": tasks[: config.train_tasks],
            "dev": tasks[config.train_tasks : held_out],
            "test": tasks[held_out:last],
        }

    @staticmethod
    def content(config: RequestSettings) -> str:
        """Hash of the files. Raises DataError where there are none."""
        return _library(config).content()

    def tasks(self, split: Split) -> list[Task]:
        """Raises WorldError for a split that is not train, dev or test."""
        return of_split(split, self._splits, f"world {self.name}")

    def reference(self, task: Task) -> Reference:
        return self._request(task).reference

    def open(self, task: Task, seed: int) -> ToolBenchSession:
        """`seed` changes nothing."""
        return ToolBenchSession(self._request(task), self.counter, self.config.max_shown)

    def end(self) -> None:
        self.counter.close()

    def _request(self, task: Task) -> Request:
        return of_task(task, self._by_id, f"requests of {self.library.folder}")


class ToolBenchSession:
    """A call may name the end of an offered function, as ToolBench's environment has it; the first that ends so is
    meant."""

    def __init__(self, request: Request, counter: Counter, most: int, sources: Iterable[Source] = ()) -> None:
        self._request, self._counter, self._most = request, counter, most
        self._functions = [each for each in request.functions if each.is_shown]
        self.sources = list(sources)
        """Where the replies so far came from."""

    def fork(self) -> ToolBenchSession:
        return ToolBenchSession(self._request, self._counter, self._most, self.sources)

    async def call(self, call: ToolCall) -> Observation:
        reply = await self._reply(call)
        self.sources.append(reply.source)
        return reply.observation(self._most)

    async def _reply(self, call: ToolCall) -> Reply:
        named = [each for each in self._functions if each.tool.name == call.name]
        ending = [each for each in self._functions if call.name and each.tool.name.endswith(call.name)]
        for each in [*named, *ending][:1]:
            return await self._counter.reply(each.api, call.arguments)
        return missing(f"No such function name: {call.name}", "unknown_tool")

    async def say(self, message: str) -> str | None:
        """None: nobody answers."""
        return None

    async def close(self, answer: str | None) -> Outcome:
        """Nothing is known: only a judge can tell."""
        return Outcome(evidence=f"only a judge can tell; {mix(self.sources)}")


def _library(config: RequestSettings) -> Library:
    """Raises DataError where its folder is not named, or holds nothing."""
    if not (folder := config.path or os.environ.get(VARIABLE)):
        raise DataError(
            "its folder is not named", where="world.path", fix=f"set world.path in params.yaml, or {VARIABLE}"
        )
    return Library(Path(folder))

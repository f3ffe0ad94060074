"""The world `toolbench`: requests of ToolBench and StableToolBench, and functions that reply from recordings.

Its groups are the six subsets. Whether an answer is right only a judge can tell; how often attempts finish, and what
they call, counts anyway. The evidence of an outcome says where the replies came from.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import Field

from steptool.core.errors import DataError, InputError, WorldError
from steptool.core.fields import Natural, Outside, Positive, Settings, Text
from steptool.core.types import Observation, Outcome, Reference, Task, ToolCall
from steptool.endpoints.settings import PartSettings
from steptool.worlds.base import Split
from steptool.worlds.in_turn import in_turn
from steptool.worlds.toolbench.desk import Desk
from steptool.worlds.toolbench.library import Library
from steptool.worlds.toolbench.metrics import OF_REPLIES
from steptool.worlds.toolbench.names import Api
from steptool.worlds.toolbench.pack import VARIABLE
from steptool.worlds.toolbench.replies import MAX_SHOWN, Reply, Source, missing, mix
from steptool.worlds.toolbench.requests import Request
from steptool.worlds.toolbench.simulator import Simulator


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


class Requests:
    """The requests of a folder, split. Raises DataError where there is none, InputError where there are fewer than
    asked for."""

    def __init__(self, config: RequestSettings) -> None:
        self.library = library_of(config)
        found = [each for each in self.library.requests if each.subset in (config.subsets or [each.subset])]
        self._by_id: dict[str, Request] = {each.id: each for each in found}
        tasks, held_out = (
            in_turn((each.task for each in found), lambda task: task.group),
            config.train_tasks + config.dev_tasks,
        )
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

    def of(self, split: Split, world: str) -> list[Task]:
        """Raises WorldError for a split that is not train, dev or test."""
        if split not in self._splits:
            raise WorldError(f"no split {split!r}", where=f"world {world}", fix="name one of train, dev, test")
        return list(self._splits[split])

    def of_task(self, task: Task) -> Request:
        """Raises WorldError for a task that is not one of these."""
        if task.id not in self._by_id:
            fix = "make the tasks again from the present params.yaml: dvc repro prepare"
            where = f"requests of {self.library.folder}"
            raise WorldError(f"task {task.id} is not one of this world's", where=where, fix=fix)
        return self._by_id[task.id]


def library_of(config: RequestSettings) -> Library:
    """Raises DataError where its folder is not named, or holds nothing."""
    if not (folder := config.path or os.environ.get(VARIABLE)):
        raise DataError(
            "its folder is not named", where="world.path", fix=f"set world.path in params.yaml, or {VARIABLE}"
        )
    return Library(Path(folder))


class ToolBenchWorld:
    """Raises what `Requests` and `Simulator` raise."""

    name: ClassVar[str] = "toolbench"
    metrics: ClassVar[Mapping[str, Mapping[str, Any]]] = OF_REPLIES

    class Config(RequestSettings):
        nearest: Annotated[float, Field(ge=0.5, le=1)] = 0.9
        """Least likeness of arguments to recorded ones, of texts by their letters, at which the reply to these is
        given; 1: only to arguments that are equal in one spelling."""
        simulator: PartSettings | None = None
        """Endpoint of a model that replies to what was never recorded; null: such a call is an error."""
        kept: Annotated[Outside, Field(min_length=1, exclude=True)] = "toolbench.db"
        """File of what this model replied."""

    def __init__(self, config: Config, seed: int) -> None:
        """`seed` changes nothing."""
        self.config = config
        self._requests = Requests(config)
        simulator = Simulator(config.simulator) if config.simulator else None
        self._desk = Desk(self._requests.library, Path(config.kept), nearest=config.nearest, simulator=simulator)

    @staticmethod
    def content(config: Config) -> str:
        """Hash of the files. Raises DataError where there are none."""
        return library_of(config).content()

    def tasks(self, split: Split) -> list[Task]:
        return self._requests.of(split, self.name)

    def reference(self, task: Task) -> Reference:
        return self._requests.of_task(task).reference

    def open(self, task: Task, seed: int) -> ToolBenchSession:
        return ToolBenchSession(self._requests.of_task(task), self._desk, self.config.max_shown)

    def end(self) -> None:
        self._desk.close()


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

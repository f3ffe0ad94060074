"""Requests of ToolBench, answered from recordings. A recorded call gets the reply that it got most often.

    queries.jsonl.gz          one request a line: query_id, subset, query, api_list, relevant_apis
    tool_responses.jsonl.gz   one call a line: name, arguments, and the replies to it, commonest first

Replay serves policies close to the recorded ones; what was never called has no reply, which is a typed
error. Nothing here can tell whether an answer is right: that needs a judge.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator

from steptool.core.errors import DataError, InputError, WorldError
from steptool.core.fields import Natural, Outside, Positive, Settings
from steptool.core.storage import file_hash, parse_json, parse_record, parse_text, read_lines
from steptool.core.types import AnswerCheck, Observation, Outcome, Reference, Task, Tool, ToolCall, content_hash
from steptool.worlds.answers import outcome_of
from steptool.worlds.base import Split

VARIABLE = "STEPTOOL_RECORDED"
QUERIES, REPLIES = "queries.jsonl.gz", "tool_responses.jsonl.gz"
Row = TypeVar("Row", bound=BaseModel)


JSON_TYPES = ("string", "number", "integer", "boolean", "array", "object", "null")


def _json_type(value: object) -> object:
    """ToolBench's own files spell a type STRING or Number."""
    if isinstance(value, str) and value.strip().lower() not in JSON_TYPES:
        raise ValueError(f"{value[:80]!r} is no type of JSON; these are: {', '.join(JSON_TYPES)}")
    return value.strip().lower() if isinstance(value, str) else value


class _Parameter(BaseModel):
    name: str
    type: Annotated[str, BeforeValidator(_json_type)]
    required: bool
    description: str = ""


class _Api(BaseModel):
    name: str
    description: str
    category: str
    parameters: list[_Parameter]
    parameters_hidden_from_model: bool = False
    not_shown_to_model: bool = False

    def as_tool(self) -> Tool:
        """The function as the recorded policies saw it."""
        shown = [] if self.parameters_hidden_from_model else self.parameters
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {p.name: {"type": p.type, "description": p.description} for p in shown},
            "required": list(dict.fromkeys(p.name for p in shown if p.required)),
        }
        return Tool(name=self.name, description=self.description, parameters=schema, category=self.category)


class _Relevant(BaseModel):
    name: str


class _Query(BaseModel):
    query_id: str
    subset: str
    query: str
    api_list: list[_Api]
    relevant_apis: list[_Relevant]

    def as_task(self) -> Task:
        tools = tuple(api.as_tool() for api in self.api_list if not api.not_shown_to_model)
        return Task(id=self.query_id, group=self.subset, query=self.query, tools=tools)

    def as_reference(self) -> Reference:
        offered = {api.name for api in self.api_list if not api.not_shown_to_model}
        relevant = tuple(api.name for api in self.relevant_apis if api.name in offered)
        return Reference(task_id=self.query_id, answer_check=AnswerCheck(kind="judge"), relevant_tools=relevant)


class _Reply(BaseModel):
    text: str
    error: Literal["none", "soft", "hard", "empty", "hallucinated"]

    def as_observation(self) -> Observation:
        return Observation(text=self.text, error=None if self.error == "none" else self.error)


class _Recording(BaseModel):
    name: str
    arguments: str
    responses: list[_Reply]


class RecordedWorld:
    """Splits the requests, taken from the groups in turn: the first `train_tasks` for training, the next `dev_tasks`
    for tuning, the next `test_tasks` for testing.

    Raises DataError where no folder is named, or a file is missing or broken, InputError where there are fewer requests
    than asked for.
    """

    name: ClassVar[str] = "recorded"

    class Config(Settings):
        path: Outside = ""
        """Folder of the recordings; empty takes the environment variable STEPTOOL_RECORDED."""
        train_tasks: Natural = 640
        dev_tasks: Natural = 240
        test_tasks: Positive = 300

    def __init__(self, config: Config, seed: int) -> None:
        """`seed` changes nothing: a call always gets its commonest reply."""
        self.config = config
        folder = _folder(config)
        requests = list(_read(folder / QUERIES, _Query))
        tasks, held_out = _in_turn([request.as_task() for request in requests]), config.train_tasks + config.dev_tasks
        self._references = {request.query_id: request.as_reference() for request in requests}
        self._splits: dict[Split, list[Task]] = {
            "train": tasks[: config.train_tasks],
            "dev": tasks[config.train_tasks : held_out],
            "test": tasks[held_out : held_out + config.test_tasks],
        }
        wanted = {"train": config.train_tasks, "dev": config.dev_tasks, "test": config.test_tasks}
        for split, found in self._splits.items():
            if len(found) < wanted[split]:
                raise InputError(
                    f"{len(tasks)} requests are recorded, which leaves {len(found)} for {split}",
                    where=f"params.yaml, world.{split}_tasks: {wanted[split]}, of {folder}",
                    fix="lower world.train_tasks, world.dev_tasks and world.test_tasks until they fit",
                )
        self._replies = {
            (row.name, _as_called(row.arguments)): row.responses[0].as_observation()
            for row in _read(folder / REPLIES, _Recording)
            if row.responses
        }

    @staticmethod
    def content(config: Config) -> str:
        """Hash of the recordings. Raises DataError where a file is missing, or no folder is named."""
        folder = _folder(config)
        if missing := [name for name in (QUERIES, REPLIES) if not os.path.isfile(folder / name)]:
            raise DataError(
                f"no {' and no '.join(missing)} on this machine",
                where=str(folder),
                fix=f"point world.path or {VARIABLE} at the recordings; a node needs them too, in its own {VARIABLE}",
            )
        return f"files {content_hash([file_hash(folder / QUERIES), file_hash(folder / REPLIES)])}"

    def tasks(self, split: Split) -> list[Task]:
        """Raises WorldError for a split that is not train, dev or test."""
        if split not in self._splits:
            raise WorldError(f"no split {split!r}", where="world recorded", fix="name one of train, dev, test")
        return list(self._splits[split])

    def reference(self, task: Task) -> Reference:
        return self._references[task.id]

    def open(self, task: Task, seed: int) -> RecordedSession:
        return RecordedSession(task, self._replies)


def requests(path: Path) -> Iterator[Task]:
    """The requests of a file such as queries.jsonl.gz. Raises DataError where it is missing or broken."""
    return (request.as_task() for request in _read(path, _Query))


def _in_turn(tasks: list[Task]) -> list[Task]:
    """One task of each group after the other, as long as they last; the order within a group stays."""
    by_group: dict[str, list[Task]] = {}
    for task in tasks:
        by_group.setdefault(task.group, []).append(task)
    return [task for turn in zip_longest(*by_group.values()) for task in turn if task is not None]


class RecordedSession:
    """Replies depend on the call alone. One that was never recorded gets an observation with error `no_recording`."""

    def __init__(self, task: Task, replies: dict[tuple[str, str], Observation]) -> None:
        self._task, self._replies = task, replies

    async def call(self, call: ToolCall) -> Observation:
        if self._task.tool(call.name) is None:
            return _failure("unknown_tool", f"there is no function {call.name}")
        recorded = self._replies.get((call.name, canonical(call.arguments)))
        return recorded or _failure("no_recording", "no answer is known to this call")

    def fork(self) -> RecordedSession:
        return RecordedSession(self._task, self._replies)

    async def say(self, message: str) -> str | None:
        """None: nobody answers."""
        return None

    async def close(self, answer: str | None) -> Outcome:
        """Nothing is known: only a judge can tell."""
        return outcome_of(None, answer)


def canonical(arguments: dict[str, Any]) -> str:
    """Arguments as recordings are filed: JSON with sorted keys and no spaces."""
    return json.dumps(arguments, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _as_called(arguments: str) -> str:
    """Arguments of a recording as a call with them looks one up; what is no JSON object stays, and no call finds it."""
    try:
        value = parse_json(arguments)
    except ValueError:
        return arguments
    return canonical(value) if isinstance(value, dict) else arguments


def _failure(kind: str, message: str) -> Observation:
    return Observation(text=json.dumps({"error": message, "response": ""}), error=kind)


def _folder(config: RecordedWorld.Config) -> Path:
    if not (folder := config.path or os.environ.get(VARIABLE)):
        raise DataError(
            "its folder is not named", where="world recorded", fix=f"set world.path in params.yaml, or {VARIABLE}"
        )
    return Path(folder)


def _read(path: Path, row: type[Row]) -> Iterator[Row]:
    restore = "restore the file from where it came"
    lines = read_lines(path, missing=f"point world.path or {VARIABLE} at the pack", broken=restore)
    for number, line in enumerate(lines, start=1):
        value = parse_text(line, str(path), line=number, fix=restore)
        yield parse_record(value, row, where=f"{path}:{number}", fix=restore)

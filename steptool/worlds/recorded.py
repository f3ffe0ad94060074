"""Requests of ToolBench answered from recordings: an exact call gets the reply that it got most often.

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
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator

from steptool.core.errors import DataError, InputError, RecordingMiss, WorldError
from steptool.core.storage import file_hash, parse_json, parse_record, parse_text, read_lines
from steptool.core.types import AnswerCheck, Observation, Revision, Task, Tool, content_hash

VARIABLE = "STEPTOOL_RECORDED"
QUERIES, REPLIES = "queries.jsonl.gz", "tool_responses.jsonl.gz"
OnMiss = Literal["error", "raise"]
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
        offered = {tool.name for tool in tools}
        return Task(
            id=self.query_id,
            subset=self.subset,
            query=self.query,
            tools=tools,
            relevant_tools=tuple(api.name for api in self.relevant_apis if api.name in offered),
            answer_check=AnswerCheck(kind="judge"),
        )


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
    """`path` is the folder of the recordings; None takes it from STEPTOOL_RECORDED.

    The requests, taken from the subsets in turn, are dealt out: the first `train_tasks` for training, the
    next `dev_tasks` for tuning, the next `test_tasks` (None: all that are left) for testing.
    on_miss: what a call without a recording gets, an observation with error `no_recording` ("error") or
    RecordingMiss ("raise"), which ends the trajectory as `world_error`.
    Raises DataError where no folder is named, or a file is missing or broken, InputError where there are fewer requests
    than asked for.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        train_tasks: int = 0,
        dev_tasks: int = 0,
        test_tasks: int | None = None,
        on_miss: OnMiss = "error",
    ) -> None:
        folder = path or _folder_from_environment()
        self._on_miss: OnMiss = on_miss
        tasks = _in_turn([row.as_task() for row in _read(folder / QUERIES, _Query)])
        held_out = train_tasks + dev_tasks
        end = None if test_tasks is None else held_out + test_tasks
        self._splits = {
            "train": tasks[:train_tasks],
            "dev": tasks[train_tasks:held_out],
            "test": tasks[held_out:end],
        }
        for split, wanted in (("train", train_tasks), ("dev", dev_tasks), ("test", test_tasks or 0)):
            if len(self._splits[split]) < wanted:
                raise InputError(
                    f"{len(tasks)} requests are recorded, which leaves {len(self._splits[split])} for {split}",
                    where=f"params.yaml, world.{split}_tasks: {wanted}, of {folder}",
                    fix="lower world.train_tasks, world.dev_tasks and world.test_tasks until they fit",
                )
        self._replies = {
            (row.name, _as_called(row.arguments)): row.responses[0].as_observation()
            for row in _read(folder / REPLIES, _Recording)
            if row.responses
        }
        sizes = [len(split) for split in self._splits.values()]
        content = content_hash([file_hash(folder / QUERIES), file_hash(folder / REPLIES), on_miss, sizes])
        self.revision = Revision(name="recorded", revision=content)

    def all_tasks(self, split: str = "test") -> list[Task]:
        """Raises WorldError for a split that is not train, dev or test."""
        if split not in self._splits:
            raise WorldError(f"no split {split!r}", where="world recorded", fix="name one of train, dev, test")
        return list(self._splits[split])

    def tasks(self, subset: str, split: str = "test") -> list[Task]:
        return [task for task in self.all_tasks(split) if task.subset == subset]

    def reset(self, task: Task, seed: int) -> RecordedSession:
        """`seed` changes nothing: a call always gets its commonest reply."""
        return RecordedSession(task, self._replies, self._on_miss)


def _in_turn(tasks: list[Task]) -> list[Task]:
    """One task of each subset after the other, as long as they last; the order within a subset stays."""
    by_subset: dict[str, list[Task]] = {}
    for task in tasks:
        by_subset.setdefault(task.subset, []).append(task)
    return [task for turn in zip_longest(*by_subset.values()) for task in turn if task is not None]


class RecordedSession:
    def __init__(self, task: Task, replies: dict[tuple[str, str], Observation], on_miss: OnMiss) -> None:
        self._task, self._replies, self._on_miss = task, replies, on_miss

    async def call(self, name: str, arguments: dict[str, Any]) -> Observation:
        if self._task.tool(name) is None:
            return _failure("unknown_tool", f"there is no function {name}")
        key = canonical(arguments)
        if observation := self._replies.get((name, key)):
            return observation
        if self._on_miss == "raise":
            raise RecordingMiss(
                f"no recorded reply to {name} {key[:200]}",
                where=f"world recorded, task {self._task.id}",
                fix='use on_miss="error" to show the policy an error instead',
            )
        return _failure("no_recording", "no answer is known to this call")

    def verify(self, answer: str | None) -> float | None:
        """0.0 without an answer; else None, as only a judge can tell."""
        return 0.0 if answer is None else None


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


def _folder_from_environment() -> Path:
    if not (folder := os.environ.get(VARIABLE)):
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


def recordings_content(path: Path | None) -> str:
    """What the recordings consist of. Raises DataError where a file is missing, or no folder is named."""
    folder = path or _folder_from_environment()
    if missing := [name for name in (QUERIES, REPLIES) if not os.path.isfile(folder / name)]:
        raise DataError(
            f"no {' and no '.join(missing)} on this machine",
            where=str(folder),
            fix=f"point world.path or {VARIABLE} at the recordings; a node needs them too, in its own {VARIABLE}",
        )
    return f"files {content_hash([file_hash(folder / QUERIES), file_hash(folder / REPLIES)])}"

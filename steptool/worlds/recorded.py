"""Requests of ToolBench, answered from recordings. A recorded call gets the reply that it got most often.

    queries.jsonl.gz          one request a line: query_id, subset, query, api_list, relevant_apis
    tool_responses.jsonl.gz   one call a line: name, arguments, and the replies to it, commonest first

Replay serves policies close to the recorded ones; what was never called has no reply, which is a typed
error. Nothing here can tell whether an answer is right: that needs a judge.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import ClassVar

from steptool.core.errors import DataError, InputError
from steptool.core.fields import Natural, Outside, Positive, Settings
from steptool.core.storage import file_hash
from steptool.core.types import Observation, Outcome, Reference, Task, ToolCall, content_hash
from steptool.worlds.answers import outcome_of
from steptool.worlds.base import Split
from steptool.worlds.in_turn import in_turn
from steptool.worlds.likeness import canonical
from steptool.worlds.lookup import of_split, of_task
from steptool.worlds.toolbench import pack
from steptool.worlds.toolbench.pack import QUERIES, REPLIES, VARIABLE


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
        requests = list(pack.requests(folder / QUERIES))
        tasks = in_turn((request.task for request in requests), lambda task: task.group)
        held_out = config.train_tasks + config.dev_tasks
        self._references = {request.id: request.reference for request in requests}
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
            (name, canonical(reply.arguments)): Observation(text=reply.text, error=reply.error)
            for _, name, reply in pack.recordings(folder / REPLIES)
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
        return of_split(split, self._splits, "world recorded")

    def reference(self, task: Task) -> Reference:
        return of_task(task, self._references, "world recorded")

    def open(self, task: Task, seed: int) -> RecordedSession:
        return RecordedSession(task, self._replies)


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


def _failure(kind: str, message: str) -> Observation:
    return Observation(text=json.dumps({"error": message, "response": ""}), error=kind)


def _folder(config: RecordedWorld.Config) -> Path:
    if not (folder := config.path or os.environ.get(VARIABLE)):
        raise DataError(
            "its folder is not named", where="world recorded", fix=f"set world.path in params.yaml, or {VARIABLE}"
        )
    return Path(folder)

"""Demonstrations from a log of chat messages, one conversation a line:

    {"task": "t7", "messages": [{"call": "toggle", "arguments": {"room": "hall"}, "reply": "{…}"}], "answer": "done"}

demonstrations: {use: 'log:ChatLog', path: log.jsonl}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from steptool.core.errors import DataError
from steptool.core.fields import Outside, Settings
from steptool.core.storage import file_hash
from steptool.core.types import (
    FINISH,
    Action,
    Observation,
    Outcome,
    Revision,
    Step,
    StopReason,
    Task,
    ToolCall,
    Trajectory,
)
from steptool.worlds.base import World


class ChatLog:
    class Config(Settings):
        path: Outside

    def __init__(self, config: Config) -> None:
        self.config = config

    @staticmethod
    def content(config: Config) -> str:
        return file_hash(Path(config.path))

    def read(self, world: World, tasks: Mapping[str, Task], seed: int) -> Iterator[Trajectory]:
        for number, line in enumerate(Path(self.config.path).read_text().splitlines(), start=1):
            try:
                entry = json.loads(line)
                steps = [_step(message) for message in entry["messages"]]
                answer = str(entry["answer"])
            except (ValueError, KeyError, TypeError) as error:
                where = f"{self.config.path}:{number}"
                raise DataError(f"no conversation: {error}", where=where, fix="mend this line") from error
            finish = Action(calls=(ToolCall(name=FINISH, arguments={"answer": answer}),))
            yield Trajectory.create(
                task_id=entry["task"],
                steps=(*steps, Step(action=finish)),
                stop_reason=StopReason.finished,
                answer=answer,
                outcome=Outcome(solved=1.0, evidence="the log"),
                policy=Revision(name="log", revision=self.content(self.config)),
                conditions=None,
            )


def _step(message: dict[str, object]) -> Step:
    call = ToolCall.model_validate({"name": message["call"], "arguments": message["arguments"]})
    return Step(action=Action(calls=(call,)), observations=(Observation(text=str(message["reply"])),))

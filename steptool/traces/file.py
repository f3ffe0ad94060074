"""Demonstrations of the user's own, in a file (plain or gzip), one a line:

    {"task_id": "t7", "steps": [
        {"call": {"name": "shop.find", "arguments": {"name": "tea"}}, "observation": {"text": "{\"id\": \"a1\"}"}},
        {"call": {"name": "Finish", "arguments": {"answer": "a1"}}}]}

A step may have a `thought`. The last one is `Finish`, with an answer or {"give_up": true}.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, ValidationError

from steptool.core.errors import DataError
from steptool.core.fields import Outside, Settings
from steptool.core.storage import file_hash, parse_record, parse_text, read_lines
from steptool.core.types import (
    Action,
    AnswerCheck,
    Frozen,
    Observation,
    Revision,
    Step,
    StopReason,
    Task,
    ToolCall,
    Trajectory,
)
from steptool.worlds.answers import outcome_of
from steptool.worlds.base import World

FIX = "mend this line; steptool/traces/file.py shows what one holds"


class GivenStep(Frozen):
    thought: str = ""
    call: ToolCall
    observation: Observation | None = None

    def as_step(self) -> Step:
        observations = () if self.observation is None else (self.observation,)
        return Step(action=Action(thought=self.thought, calls=(self.call,)), observations=observations)


class Demonstration(Frozen):
    task_id: str
    steps: tuple[GivenStep, ...]


class TraceFile:
    name: ClassVar[str] = "file"

    class Config(Settings):
        path: Annotated[Outside, Field(min_length=1)]

    def __init__(self, config: Config) -> None:
        self.config = config

    @staticmethod
    def content(config: Config) -> str:
        """Hash of the file. Raises DataError where there is none."""
        if not os.path.isfile(config.path):
            fix = "set demonstrations.path in params.yaml to a file that is there"
            raise DataError("no such file", where=config.path, fix=fix)
        return file_hash(Path(config.path))

    def read(self, world: World, tasks: Mapping[str, Task], seed: int) -> Iterator[Trajectory]:
        """The demonstrations of the file, in its order. Raises DataError for the first line that is broken."""
        path = self.config.path
        policy = Revision(name="given", revision=self.content(self.config))
        lines = read_lines(Path(path), missing="write the file again", broken="write the file again")
        for number, line in enumerate(lines, start=1):
            where = f"{path}:{number}"
            given = parse_record(parse_text(line, path, line=number, fix=FIX), Demonstration, where=where, fix=FIX)
            task = tasks.get(given.task_id)
            check = world.reference(task).answer_check if task else None
            try:
                yield _trajectory(given, check, policy, seed)
            except ValidationError as error:  # a `Finish` before the end, a call without its reply
                found = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise DataError(f"Demonstration: {found}", where=where, fix=FIX) from error


def _trajectory(given: Demonstration, check: AnswerCheck | None, policy: Revision, seed: int) -> Trajectory:
    """The outcome is what `check` says of the answer: the state that the calls made is not at hand."""
    steps = tuple(step.as_step() for step in given.steps)
    answer, reason = None, StopReason.call_budget
    if steps and steps[-1].is_finish:
        answer = given.steps[-1].call.arguments.get("answer")
        reason = StopReason.gave_up if answer is None else StopReason.finished
    answer = None if answer is None else str(answer)
    return Trajectory.create(
        task_id=given.task_id,
        steps=steps,
        stop_reason=reason,
        answer=answer,
        outcome=outcome_of(check, answer),
        policy=policy,
        conditions=None,
        seed=seed,
    )

"""Demonstrations of the user's own, in a file (plain or gzip), one a line:

    {"task_id": "t7", "steps": [
        {"call": {"name": "shop.find", "arguments": {"name": "tea"}}, "observation": {"text": "{\"id\": \"a1\"}"}},
        {"call": {"name": "Finish", "arguments": {"answer": "a1"}}}]}

A step may have a `thought`. The last one is `Finish`, with an answer or {"give_up": true}.

Where the observations of a line are left out, its calls are made: the world replies, and judges the attempt while the
state that the calls made is alive.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, ValidationError

from steptool.core.errors import DataError, WorldError
from steptool.core.fields import Outside, Settings
from steptool.core.storage import file_hash, parse_record, parse_text, read_lines
from steptool.core.types import (
    FINISH,
    Action,
    Frozen,
    Observation,
    Outcome,
    Revision,
    Step,
    StopReason,
    Task,
    ToolCall,
    Trajectory,
)
from steptool.rollouts.guard import GuardedSession
from steptool.rollouts.loop import run
from steptool.worlds.answers import outcome_of
from steptool.worlds.base import World

TIMEOUT_S = 60.0
"""How long a tool may take whose call is made for a demonstration."""
MAX_OBSERVATION = 100_000
"""Characters of its reply that are kept."""
FIX = (
    'write it as {"task_id": "1", "steps": [{"call": {"name": "find", "arguments": {"title": "Dune"}}}, '
    '{"call": {"name": "Finish", "arguments": {"answer": "9.5"}}}]}'
)


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

    @property
    def lacks_replies(self) -> bool:
        """Whether its calls can be made, and have to be."""
        before = self.steps[:-1]
        return any(step.observation is None for step in before) and all(step.call.name != FINISH for step in before)

    @property
    def answer(self) -> str | None:
        """What `Finish` answers, None where the last step is none or gives up."""
        return self.steps[-1].as_step().action.answer if self.steps else None


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
            try:
                if task is not None and given.lacks_replies:
                    given, outcome = run(_called(given, world, task, seed))
                else:  # the state that the calls made is not at hand
                    check = world.reference(task).answer_check if task else None
                    outcome = outcome_of(check, given.answer, task.query if task else "")
                yield _trajectory(given, outcome, policy, seed)
            except WorldError as error:
                found = f"its calls cannot be made: {error.found}"
                raise DataError(found, where=where, fix=error.fix or FIX) from error
            except ValidationError as error:  # a `Finish` before the end
                found = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise DataError(f"Demonstration: {found}", where=where, fix=FIX) from error


async def _called(given: Demonstration, world: World, task: Task, seed: int) -> tuple[Demonstration, Outcome]:
    """The demonstration with the replies of the world to its calls, and what the world says of it."""
    session = GuardedSession(world.open(task, seed), timeout_s=TIMEOUT_S, most=MAX_OBSERVATION)
    steps = []
    try:
        for step in given.steps:
            is_call = step.call.name != FINISH
            steps.append(step.model_copy(update={"observation": await session.call(step.call)}) if is_call else step)
    finally:
        outcome = await session.close(given.answer)
    return given.model_copy(update={"steps": tuple(steps)}), outcome


def _trajectory(given: Demonstration, outcome: Outcome, policy: Revision, seed: int) -> Trajectory:
    steps = tuple(step.as_step() for step in given.steps)
    answer, reason = given.answer, StopReason.call_budget
    if steps and steps[-1].is_finish:
        reason = StopReason.gave_up if answer is None else StopReason.finished
    return Trajectory.create(
        task_id=given.task_id,
        steps=steps,
        stop_reason=reason,
        answer=answer,
        outcome=outcome,
        policy=policy,
        conditions=None,
        seed=seed,
    )

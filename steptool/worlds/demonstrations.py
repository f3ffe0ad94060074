"""Reads the user's demonstrations, one a line:

    {"task_id": "t7", "steps": [
        {"call": {"name": "shop.find", "arguments": {"name": "tea"}}, "observation": {"text": "{\"id\": \"a1\"}"}},
        {"call": {"name": "Finish", "arguments": {"answer": "a1"}}}]}

A step may have a `thought`. The last one is `Finish`, with an answer or {"give_up": true}.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from steptool.core.errors import DataError
from steptool.core.storage import file_hash, parse_record, parse_text, read_lines
from steptool.core.types import Frozen, Observation, Revision, Sampling, Step, StopReason, ToolCall, Trajectory
from steptool.worlds.checks import Splits, check_demonstrations

GIVEN = Revision(name="given", revision="1")
MISSING = "set demonstrations.path in params.yaml to a file that is there"
NOT_SAMPLED = Sampling(temperature=0.0, top_p=1.0, max_calls=0, max_step_tokens=0, max_tokens=0, strategy="given")


class GivenStep(Frozen):
    thought: str = ""
    call: ToolCall
    observation: Observation | None = None


class Demonstration(Frozen):
    task_id: str
    steps: tuple[GivenStep, ...]


def read_demonstrations(path: Path, splits: Splits, world: Revision, seed: int) -> list[Trajectory]:
    """The demonstrations of a file. Raises DataError where one is broken or shows no way to do a training task."""
    lines = read_lines(path, missing=MISSING, broken="write the file again")
    subsets = {task.id: task.subset for tasks in splits.values() for task in tasks}
    made = []
    for number, line in enumerate(lines, start=1):
        where, fix = f"{path}:{number}", "mend this line; steptool/worlds/demonstrations.py shows what one holds"
        given = parse_record(parse_text(line, str(path), line=number, fix=fix), Demonstration, where=where, fix=fix)
        try:
            made.append(_trajectory(given, subsets.get(given.task_id, ""), world, seed))
        except ValidationError as error:  # a `Finish` before the end, a call without its reply
            found = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise DataError(f"Demonstration: {found}", where=where, fix=fix) from error
    check_demonstrations(made, splits, str(path))
    return made


def demonstrations_content(path: str) -> str:
    """What the file consists of, in one short text. Raises DataError where `path` names none."""
    if not path:
        return "the world's own"
    if not os.path.isfile(path):
        raise DataError("no such file", where=path, fix=MISSING)
    return f"file {file_hash(Path(path))}"


def _trajectory(given: Demonstration, subset: str, world: Revision, seed: int) -> Trajectory:
    steps = tuple(Step(thought=s.thought, call=s.call, observation=s.observation) for s in given.steps)
    answer, reason = None, StopReason.call_budget
    if steps and steps[-1].is_finish:
        answer = given.steps[-1].call.arguments.get("answer")
        reason = StopReason.gave_up if answer is None else StopReason.finished
    return Trajectory.create(
        task_id=given.task_id,
        subset=subset,
        steps=steps,
        stop_reason=reason,
        answer=None if answer is None else str(answer),
        policy=GIVEN,
        world=world,
        sampling=NOT_SAMPLED,
        seed=seed,
    )

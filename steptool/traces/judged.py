"""Judged runs of ToolBench as attempts, with the verdicts that somebody gave them.

    FOLDER/METHOD.jsonl.gz      one attempt a line, as `steptool.evaluation.judged.records` reads it

How an attempt ended and what its verdicts count is said there. An attempt is as an annotator gets it: without them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from steptool.core.errors import DataError, InputError
from steptool.core.types import (
    FINISH,
    Action,
    Frozen,
    Observation,
    Revision,
    Step,
    StopReason,
    Task,
    ToolCall,
    Trajectory,
)
from steptool.evaluation.judged.files import read_runs, requests_beside
from steptool.evaluation.judged.records import GAVE_UP, Call, JudgedRun
from steptool.formats.arguments import read_arguments
from steptool.worlds.toolbench.pack import QUERIES, requests

NAME_THEM = f"name the file of their requests, such as {QUERIES}, by --tasks or --queries"


class JudgedAttempt(Frozen):
    """One attempt, its task, and what it was judged."""

    method: str
    task: Task
    trajectory: Trajectory
    votes: tuple[float, ...]


def judged_attempts(place: Path, queries: Path | None = None) -> Iterator[JudgedAttempt]:
    """The attempts of all files of a folder, or of one file, in the order of their names.

    `queries`: the file of their requests; by default queries.jsonl.gz in the folder or above it. Raises InputError
    where there are no runs or no requests, DataError for lines that cannot be used.
    """
    files = read_runs(place)
    asked = queries or requests_beside(place)
    if asked is None:
        fix = f"put {QUERIES} beside them, or {NAME_THEM}"
        raise InputError("these runs need the file of their requests", where=str(place), fix=fix)
    tasks = _tasks(asked)
    for file in files:
        for id, run in file.runs.items():
            if id not in tasks:
                found = f"{file.name} asks {id!r:.80}, a request that is not there"
                raise InputError(found, where=str(asked), fix=NAME_THEM)
            yield JudgedAttempt(
                method=file.name,
                task=tasks[id],
                trajectory=_attempt(run, file.name),
                votes=run.values(file.passes),
            )


def _tasks(queries: Path) -> dict[str, Task]:
    found: dict[str, Task] = {}
    for request in requests(queries):
        if request.id in found:
            fix = f"keep one of the two; or {NAME_THEM}"
            raise DataError(f"request {request.id[:80]} stands in the file twice", where=str(queries), fix=fix)
        found[request.id] = request.task
    return found


def _attempt(run: JudgedRun, method: str) -> Trajectory:
    made = [each for each in run.steps if each.name != FINISH]
    steps = [Step(action=_action(each), observations=(_observation(each),)) for each in made]
    stop, answer = StopReason.call_budget, None
    if run.finished:
        stop, answer = StopReason.finished, run.final_answer
        steps.append(Step(action=Action(calls=(ToolCall(name=FINISH, arguments={"answer": answer}),))))
    elif run.return_type == GAVE_UP:
        stop = StopReason.gave_up
        steps.append(Step(action=Action(calls=(ToolCall(name=FINISH, arguments={"give_up": True}),))))
    return Trajectory.create(
        task_id=run.query_id,
        steps=tuple(steps),
        stop_reason=stop,
        answer=answer,
        policy=Revision(name=method, revision="judged"),
        conditions=None,
    )


def _action(made: Call) -> Action:
    read = read_arguments(made.arguments.strip() or "{}")
    if isinstance(read, str):
        return Action(thought=f"{made.name} {made.arguments}", unreadable=read)
    return Action(calls=(ToolCall(name=made.name, arguments=read),))


def _observation(made: Call) -> Observation:
    text = made.response if isinstance(made.response, str) else json.dumps(made.response, ensure_ascii=False)
    return Observation(text=text, error=None if made.error in ("", "none") else made.error)

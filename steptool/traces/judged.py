"""Judged runs of ToolBench as attempts, with the verdicts that somebody gave them.

    FOLDER/METHOD.jsonl.gz      one attempt a line: query_id, subset, run, steps, return_type, final_answer, judgements

    return_type                       how the attempt ended
    give_answer                       finished, `final_answer` is its answer
    give_up_and_restart               gave up
    anything else                     no answer: its last step was a call

Solved, Unsure and Unsolved are 1, 1/2 and 0. An attempt is as an annotator gets it: without the verdicts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from steptool.core.errors import InputError
from steptool.core.storage import parse_record, parse_text, read_lines
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
from steptool.formats.arguments import read_arguments
from steptool.worlds.toolbench.pack import QUERIES, requests

VERDICTS = {"Solved": 1.0, "Unsure": 0.5, "Unsolved": 0.0}
SUFFIXES = (".jsonl", ".jsonl.gz")
ANSWERS, GIVES_UP = "give_answer", "give_up_and_restart"
MOST_STEPS = 1000
RESTORE = "restore the file from where it came"


class _Made(BaseModel):
    name: str
    arguments: str = ""
    response: Any = ""
    error: str | None = None


class _Run(BaseModel):
    query_id: Annotated[str, Field(min_length=1)]
    subset: str
    run: str = ""
    steps: Annotated[list[_Made], Field(max_length=MOST_STEPS)]
    return_type: str | None = None
    final_answer: str = ""
    judgements: list[Literal["Solved", "Unsure", "Unsolved"]] = []


class JudgedRun(Frozen):
    """One attempt, its task, and what it was judged."""

    method: str
    task: Task
    trajectory: Trajectory
    votes: tuple[float, ...]


def judged_runs(folder: Path, queries: Path | None = None) -> Iterator[JudgedRun]:
    """The attempts of all files of a folder, or of one file, in the order of their names.

    `queries`: the file of their requests; by default queries.jsonl.gz in the folder or in the one above. Raises
    InputError where there are no runs or no requests, DataError for a line that is no judged run.
    """
    if not folder.exists():
        fix = "name a file or a folder of judged runs, such as judged_runs of the pack"
        raise InputError("no such file or folder", where=str(folder), fix=fix)
    files = sorted(each for each in folder.iterdir() if each.name.endswith(SUFFIXES)) if folder.is_dir() else [folder]
    tasks = {request.id: request.task for request in requests(queries or _queries_near(folder))}
    files = [each for each in files if each.name != QUERIES]
    if not files:
        fix = "name a folder of METHOD.jsonl.gz, such as judged_runs of the pack"
        raise InputError("holds no judged runs", where=str(folder), fix=fix)
    for file in files:
        lines = read_lines(file, missing="name a file or a folder of judged runs", broken=RESTORE)
        for number, line in enumerate(lines, start=1):
            value = parse_text(line, str(file), line=number, fix=RESTORE)
            run = parse_record(value, _Run, where=f"{file}:{number}", fix=RESTORE)
            task = tasks.get(run.query_id)
            if task is None:
                fix = f"name the file of its requests, such as {QUERIES}"
                raise InputError(f"asks {run.query_id!r:.80}, a request that is not there", where=str(file), fix=fix)
            method = run.run or file.name.partition(".")[0]
            yield JudgedRun(
                method=method,
                task=task,
                trajectory=_attempt(run, method),
                votes=tuple(VERDICTS[each] for each in run.judgements),
            )


def _queries_near(folder: Path) -> Path:
    near = [place / QUERIES for place in (folder, *list(folder.resolve().parents)[:2])]
    found = next((file for file in near if file.is_file()), None)
    if found is None:
        raise InputError("these runs need the file of their requests", where=str(folder), fix=f"put {QUERIES} beside")
    return found


def is_judged_run(value: Any) -> bool:
    return isinstance(value, Mapping) and {"query_id", "steps", "return_type", "judgements"} <= value.keys()


def _attempt(run: _Run, method: str) -> Trajectory:
    made = [each for each in run.steps if each.name != FINISH]
    steps = [Step(action=_action(each), observations=(_observation(each),)) for each in made]
    stop, answer = StopReason.call_budget, None
    if run.return_type == ANSWERS:
        stop, answer = StopReason.finished, run.final_answer
        steps.append(Step(action=Action(calls=(ToolCall(name=FINISH, arguments={"answer": answer}),))))
    elif run.return_type == GIVES_UP:
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


def _action(made: _Made) -> Action:
    arguments = read_arguments(made.arguments.strip() or "{}")
    if isinstance(arguments, str):
        return Action(thought=f"{made.name} {made.arguments}", unreadable=arguments)
    return Action(calls=(ToolCall(name=made.name, arguments=arguments),))


def _observation(made: _Made) -> Observation:
    text = made.response if isinstance(made.response, str) else json.dumps(made.response, ensure_ascii=False)
    return Observation(text=text, error=None if made.error in (None, "", "none") else made.error)

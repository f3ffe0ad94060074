"""How far an annotator agrees with people or models that scored the same steps.

A file has one attempt a line, as the authors of StepTool published five (../shared/toolbench/step_rewards.jsonl):

    {"query", "steps": [{"name", "arguments", "response", "gpt4_succeed_tool_calling": [1, 1, 0],
                         "gpt4_contribution_0_5": [5, 3, 1]}, …], "final": {"arguments"}}

Each list holds one vote a pass. Lines without votes are left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from steptool.annotators.annotate import annotate_all
from steptool.annotators.base import Annotator
from steptool.checks.audit.attacks import last_action, stop_of
from steptool.core.errors import DataError
from steptool.core.storage import parse_text, read_lines
from steptool.core.types import (
    Action,
    Observation,
    Outcome,
    Reference,
    Revision,
    Step,
    Task,
    Tool,
    ToolCall,
    Trajectory,
)

SUCCESS, CONTRIBUTION, MOST = "gpt4_succeed_tool_calling", "gpt4_contribution_0_5", 5
HINT = "give a file such as ../shared/toolbench/step_rewards.jsonl"
RECORDED = Revision(name="recorded", revision="0")


@dataclass(frozen=True)
class Compared:
    """One step. All numbers are in [0, 1]."""

    success: float
    contribution: float
    votes: tuple[tuple[float, float], ...]
    """Success and contribution by each pass."""

    @property
    def voted(self) -> tuple[float, float]:
        """The mean of the votes."""
        return fmean(one for one, _ in self.votes), fmean(two for _, two in self.votes)


def compare(path: Path, annotator: Annotator, revision: Revision) -> list[Compared]:
    """Every voted step of the file. Raises DataError where there is none, or a line cannot be read."""
    tasks, attempts, votes = [], [], []
    for number, line in enumerate(read_lines(path, missing=HINT, broken=HINT), start=1):
        record = parse_text(line, str(path), line=number, fix=HINT)
        if not (isinstance(record, dict) and any(SUCCESS in step for step in record.get("steps", ()))):
            continue
        try:
            task, attempt = _read(record, f"line {number}")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"no attempt: {error!r:.200}", where=f"{path}:{number}", fix=HINT) from error
        tasks.append(task)
        attempts.append(attempt)
        votes.append([_votes(step) for step in record["steps"]])
    if not attempts:
        raise DataError(f"no step has votes ({SUCCESS})", where=str(path), fix=HINT)
    references = {task.id: Reference(task_id=task.id) for task in tasks}
    scored = annotate_all(
        annotator, revision, attempts, tasks, references, source=path, what="score the voted attempts", concurrency=8
    )
    return [
        Compared(judgement.success or 0.0, judgement.contribution or 0.0, own)
        for each, voted in zip(scored, votes, strict=True)
        for judgement, own in zip(each.judgements[:-1], voted, strict=True)
    ]


def summary(steps: Sequence[Compared]) -> str:
    """One line for a person."""
    same = fmean((step.success >= 0.5) == (step.voted[0] >= 0.5) for step in steps)
    of_votes = fmean((vote >= 0.5) == (step.voted[0] >= 0.5) for step in steps for vote, _ in step.votes)
    off = fmean(abs(step.contribution - step.voted[1]) for step in steps)
    of_each = fmean(abs(vote - step.voted[1]) for step in steps for _, vote in step.votes)
    return (
        f"{len(steps)} voted steps: success as the majority on {same:.0%} of them (a single vote on {of_votes:.0%}), "
        f"contribution off by {off:.2f} on average (a single vote by {of_each:.2f})"
    )


def _read(record: dict[str, Any], name: str) -> tuple[Task, Trajectory]:
    steps, given = [], dict[str, set[str]]()
    for step in record["steps"]:
        call = ToolCall(name=step["name"], arguments=json.loads(step["arguments"]))
        given.setdefault(call.name, set()).update(call.arguments)
        steps.append(Step(action=Action(calls=(call,)), observations=(_observation(step["response"]),)))
    answer = json.loads(record["final"]["arguments"]).get("final_answer")
    tools = [
        Tool(name=tool, description="", parameters={"type": "object", "properties": {key: {} for key in sorted(keys)}})
        for tool, keys in given.items()
    ]
    attempt = Trajectory.create(
        task_id=name,
        steps=(*steps, Step(action=last_action(answer))),
        stop_reason=stop_of(answer),
        answer=answer,
        outcome=Outcome(),
        policy=RECORDED,
        conditions=None,
        seed=0,
    )
    return Task(id=name, group="voted", query=record["query"], tools=tuple(tools)), attempt


def _observation(response: str) -> Observation:
    """The reply inside of ToolBench's envelope, {"error": "", "response": …}, where it is one."""
    try:
        envelope = json.loads(response)
    except ValueError:
        return Observation(text=response)
    if not (isinstance(envelope, dict) and {"error", "response"} <= envelope.keys()):
        return Observation(text=response)
    reply = envelope["response"]
    return Observation(text=reply if isinstance(reply, str) else json.dumps(reply), error=envelope["error"] or None)


def _votes(step: dict[str, Any]) -> tuple[tuple[float, float], ...]:
    return tuple((float(one), two / MOST) for one, two in zip(step[SUCCESS], step[CONTRIBUTION], strict=True))

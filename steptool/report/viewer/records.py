"""What the list and the search need of an attempt. Its tokens are not read: they are most of a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from steptool.core.types import FINISH

_written = json.JSONEncoder(ensure_ascii=False).encode
MAX_SEARCHED = 100_000
"""Characters of an attempt that are searched; of one that is longer, the beginning."""


class _Read(BaseModel):
    """Of a record that a stage checked when it wrote it: the fields that are named here."""

    # NaN is no JSON: one in a row would keep the page from reading any.
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class _Call(_Read):
    name: str
    arguments: dict[str, Any]


class _Action(_Read):
    thought: str = ""
    calls: list[_Call] = []
    message: str | None = None
    unreadable: str | None = None


class _Observation(_Read):
    text: str
    error: str | None = None


class _Step(_Read):
    action: _Action
    observations: list[_Observation] = []
    reply: str | None = None
    action_logprobs: list[float] = []


class _Outcome(_Read):
    solved: float | None = None


class _Policy(_Read):
    name: str


class Attempt(_Read):
    id: str
    task_id: str
    steps: list[_Step]
    stop_reason: str
    answer: str | None = None
    outcome: _Outcome = _Outcome()
    policy: _Policy
    attempt: int = 0
    error: str | None = None


class _Judgement(_Read):
    scores: dict[str, float | None] = {}
    reason: str = ""


class Judged(_Read):
    trajectory: Attempt
    judgements: list[_Judgement]


class Row(NamedTuple):
    """One line of the list."""

    part: int
    task: str
    group: str
    attempt: int
    solved: float | None
    stop: str
    steps: int
    tokens: int
    """That were sampled."""
    logprob: float | None
    """Mean of these."""
    tools: tuple[str, ...]
    """That were called, in the order of their first calls."""
    errors: tuple[str, ...]
    """Kinds of failures, in the same order."""
    query: str
    answer: str | None


def row_of(record: Attempt | Judged, part: int, query: str, group: str) -> Row:
    attempt = record.trajectory if isinstance(record, Judged) else record
    logprobs = [value for step in attempt.steps for value in step.action_logprobs]
    errors = [error for step in attempt.steps for error in _errors(step)]
    calls = (call.name for step in attempt.steps for call in step.action.calls)
    return Row(
        part=part,
        task=attempt.task_id,
        group=group,
        attempt=attempt.attempt,
        solved=_verdict(record),
        stop=attempt.stop_reason,
        steps=len(attempt.steps),
        tokens=len(logprobs),
        logprob=round(sum(logprobs) / len(logprobs), 4) if logprobs else None,
        tools=tuple(dict.fromkeys(name for name in calls if name != FINISH)),
        errors=tuple(dict.fromkeys(errors)),
        query=query[:300],
        answer=attempt.answer if attempt.answer is None else attempt.answer[:120],
    )


def text_of(record: Attempt | Judged, query: str) -> str:
    """What the search looks at, in lower case: ids, question, calls, replies, answer, reasons of judgements."""
    attempt = record.trajectory if isinstance(record, Judged) else record
    judgements = record.judgements if isinstance(record, Judged) else []
    pieces = [query, attempt.answer or "", attempt.error or "", attempt.id, attempt.task_id, attempt.policy.name]
    pieces += [piece for step in attempt.steps for piece in _said(step)]
    pieces += [judgement.reason for judgement in judgements]
    return "\n".join(pieces)[:MAX_SEARCHED].casefold()


def _said(step: _Step) -> Iterator[str]:
    action = step.action
    yield action.thought
    for call in action.calls:
        yield f"{call.name} {_written(call.arguments)}"
    yield action.message or ""
    yield action.unreadable or ""
    for observation in step.observations:
        yield observation.text
        yield observation.error or ""
    yield step.reply or ""


def _errors(step: _Step) -> Iterator[str]:
    if step.action.unreadable is not None:
        yield "unreadable"
    yield from (each.error for each in step.observations if each.error is not None)


def _verdict(record: Attempt | Judged) -> float | None:
    """As ScoredTrajectory has it."""
    if isinstance(record, Judged) and record.judgements:
        return record.judgements[-1].scores.get("solved")
    return (record.trajectory if isinstance(record, Judged) else record).outcome.solved

"""One attempt as the page shows it, step by step. Pure: from records to JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

from steptool.core.types import FINISH, Conditions, Judgement, ScoredTrajectory, Step, Trajectory, content_hash
from steptool.report.viewer.credit import Earned

PAIRED = ("success", "contribution", "solved")
"""Scores that come first, in this order."""


def attempt(record: Trajectory | ScoredTrajectory, earned: Earned | None) -> dict[str, Any]:
    made = record.trajectory if isinstance(record, ScoredTrajectory) else record
    judgements: Iterable[Judgement | None] = record.judgements if isinstance(record, ScoredTrajectory) else ()
    return {
        "id": made.id,
        "stop": made.stop_reason.value,
        "answer": made.answer,
        "solved": record.solved if isinstance(record, ScoredTrajectory) else made.outcome.solved,
        "evidence": made.outcome.evidence,
        "error": made.error,
        "facts": _facts(record, made),
        "steps": [
            step(index, each, judged, earned, path)
            for index, (each, judged, path) in enumerate(zip_longest(made.steps, judgements, histories(made.steps)))
        ],
    }


def step(index: int, of: Step, judged: Judgement | None, earned: Earned | None, path: str) -> dict[str, Any]:
    action = of.action
    advantages = earned.advantages[index] if earned and earned.advantages else ()
    replies = of.observations if action.calls else ()
    return {
        "path": path,
        "thought": action.thought,
        "calls": [
            {
                "name": call.name,
                "finish": call.name == FINISH,
                "arguments": [(name, as_text(value)) for name, value in call.arguments.items()],
                "answer": action.answer if call.name == FINISH else None,
                "reply": reply and reply.text,
                "error": reply and reply.error,
            }
            for call, reply in zip_longest(action.calls, replies)
        ],
        "message": action.message,
        "unreadable": action.unreadable,
        "hint": of.observations[0].text if action.unreadable is not None and of.observations else None,
        "reply": of.reply,
        "scores": [] if judged is None else _scores(judged),
        "reason": "" if judged is None else judged.reason,
        "votes": 1 if judged is None else judged.votes,
        "reward": earned.rewards[index] if earned else None,
        "return": earned.returns[index] if earned else None,
        "advantages": advantages,
        "sampled": len(of.action_ids),
        "logprob": sum(of.action_logprobs) / len(of.action_logprobs) if of.action_logprobs else None,
    }


def as_text(value: Any) -> str:
    """A value as JSON, and a text as it is, unless it could be taken for another value: `5` and `"5"` differ.

    The page must not read numbers: JavaScript rounds those of more than 53 bits.
    """
    if isinstance(value, str) and not _is_json(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def histories(steps: Iterable[Step]) -> list[str]:
    """One short text a step, equal where all that was done and came back up to this step is."""
    found, before = [], ""
    for each in steps:
        said = each.model_dump(mode="json", include={"action", "observations", "reply"})
        before = content_hash([before, said], length=12)
        found.append(before)
    return found


def _scores(judged: Judgement) -> list[tuple[str, float | None]]:
    first = [name for name in PAIRED if name in judged.scores]
    return [(name, judged.scores[name]) for name in (*first, *(name for name in judged.scores if name not in PAIRED))]


def _facts(record: Trajectory | ScoredTrajectory, made: Trajectory) -> list[tuple[str, str]]:
    facts = [("attempt", f"{made.attempt}, seed {made.seed}"), ("policy", str(made.policy))]
    if isinstance(record, ScoredTrajectory):
        facts.append(("judged by", str(record.annotator)))
    if made.search:
        facts.append(("search tree", made.search))
    return [*facts, *(_conditions(made.conditions) if made.conditions else []), ("id", made.id)]


def _conditions(of: Conditions) -> list[tuple[str, str]]:
    sampling = ", ".join(f"{name} {value:g}" for name, value in of.sampling.model_dump().items())
    parts = [(name, str(getattr(of, name))) for name in ("world", "format", "engine", "search")]
    return [*parts, ("dtype", str(of.dtype)), ("sampling", sampling)]

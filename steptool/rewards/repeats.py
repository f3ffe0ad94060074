"""What a step does for the first time. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from steptool.core.types import ScoredTrajectory, ToolCall


def first_shares(scored: ScoredTrajectory) -> list[float]:
    """One number a step: the share of its calls, each counted once, that no earlier step made with success and with the
    same arguments; 1 for a step without calls."""
    shares, done = [], set[str]()
    for step, judgement in zip(scored.trajectory.steps, scored.judgements, strict=True):
        made = [_written(call) for call in step.action.calls]
        share = _new_share(made, done)
        if judgement.success and share:
            done.update(made)
        shares.append(share)
    return shares


def _new_share(made: Sequence[str], done: set[str]) -> float:
    return len(set(made) - done) / len(made) if made else 1.0


def _written(call: ToolCall) -> str:
    return json.dumps([call.name, call.arguments], sort_keys=True)

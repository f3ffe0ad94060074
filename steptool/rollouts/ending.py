"""How an attempt ends, whatever made it: the reason, and the verdict of its session."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from steptool.core.errors import describe
from steptool.core.types import Outcome, Step, StopReason, Trajectory
from steptool.rollouts.base import Attempt
from steptool.rollouts.guard import GuardedSession


@dataclass(frozen=True)
class Ending:
    """Why an attempt has no next step."""

    reason: StopReason
    answer: str | None = None
    error: str | None = None


async def judged(session: GuardedSession | None, ending: Ending) -> tuple[Ending, Outcome]:
    """Close the session, which judges the attempt; there may be none, where it could not be opened.

    A session that does not close as it should makes a `world_error` of any attempt that no fault had ended before.
    """
    if session is None:
        return ending, Outcome()
    try:
        return ending, await session.close(ending.answer)
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise
    except BaseException as fault:  # noqa: BLE001 - whatever the world does is this attempt's alone
        if not ending.reason.broken:
            ending = replace(ending, reason=StopReason.world_error, error=describe(fault))
        return ending, Outcome()


def recorded(
    attempt: Attempt, steps: Sequence[Step], stream: Sequence[int], ending: Ending, outcome: Outcome
) -> Trajectory:
    """Write everything down. `stream`: the tokens up to the end of the last action, as the engine saw them.

    Raises AssertionError, a defect of this package, where the steps do not add up to them.
    """
    trajectory = Trajectory.create(
        task_id=attempt.task.id,
        steps=tuple(steps),
        stop_reason=ending.reason,
        answer=ending.answer,
        outcome=outcome,
        policy=attempt.policy,
        conditions=attempt.conditions,
        seed=attempt.seed,
        attempt=attempt.number,
        error=ending.error,
    )
    # What the engine saw last is a prefix of what is trained on, token by token.
    if trajectory.token_ids != tuple(stream):
        raise AssertionError(f"task {attempt.task.id}: the steps do not add up to the token stream")
    return trajectory

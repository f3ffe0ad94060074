"""Why an attempt failed: one cause for each, from how it ended. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from steptool.core.types import ScoredTrajectory, StopReason
from steptool.evaluation.metrics import Evaluation


class Cause(StrEnum):
    """Ordered from the answer back to the syntax: the further down, the less the policy has learned."""

    wrong_answer = "wrong answer"
    unjudged = "answer without a verdict"
    gave_up = "gave up"
    budget = "out of calls or tokens"
    bad_arguments = "bad arguments"
    unknown_tool = "unknown tool"
    parse_error = "parse error"
    rewritten = "the agent rewrote its history"
    fault = "world or engine fault"
    no_attempt = "no attempt"


ARGUMENT_ERRORS = frozenset({"missing_argument", "invalid_argument"})


def failure_cause(scored: ScoredTrajectory) -> Cause:
    """Cause of an attempt that did not solve its task, or of which nobody can tell.

    If an attempt ran out of calls or tokens and its last action could not be run, that action is the cause: a policy
    that is stuck on bad syntax spends its budget on it.
    """
    trajectory = scored.trajectory
    match trajectory.stop_reason:
        case StopReason.finished:
            return Cause.unjudged if scored.solved is None else Cause.wrong_answer
        case StopReason.gave_up:
            return Cause.gave_up
        case StopReason.engine_error | StopReason.world_error:
            return Cause.fault
        case StopReason.rewritten:
            return Cause.rewritten
    if not trajectory.steps:
        return Cause.budget
    last = trajectory.steps[-1]
    errors = {observation.error for observation in last.observations}
    if last.action.unreadable is not None:
        return Cause.parse_error
    if "unknown_tool" in errors:
        return Cause.unknown_tool
    return Cause.bad_arguments if errors & ARGUMENT_ERRORS else Cause.budget


def failure_shares(evaluation: Evaluation, judged: Sequence[ScoredTrajectory]) -> dict[Cause, float]:
    """Share of all attempts lost to each cause; the rest solved their tasks.

    Of an attempt with a verdict v between 0 and 1, the part 1 − v counts as lost.
    """
    expected = len(evaluation.solved) * evaluation.attempts
    lost = dict.fromkeys(Cause, 0.0)
    for scored in judged:
        lost[failure_cause(scored)] += 1 - (scored.solved or 0.0)
    lost[Cause.no_attempt] += expected - len(judged)
    return {cause: amount / expected for cause, amount in lost.items()}

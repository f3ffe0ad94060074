"""The metrics that every evaluation has. Each divides a sum over the attempts by another.

pass_rate, finish_rate, grounded and tool_recall count missing attempts too, so that a policy gains nothing by crashing.
The other metrics count the attempts that were made.

An attempt without a verdict is in no metric of verdicts. Nobody can tell whether it solved its task: it is no failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from steptool.core.types import Reference, ScoredTrajectory, StopReason, Task
from steptool.evaluation.base import Metric
from steptool.trajectories.links import is_grounded


class PassRate:
    describes: ClassVar[str] = "mean verdict over the tasks that have one"
    is_rate: ClassVar[bool] = True

    def fraction(self, scored: ScoredTrajectory, task: Task, reference: Reference) -> tuple[float, float]:
        verdict = verdict_on(scored, reference)
        return (0.0, 0.0) if verdict is None else (verdict, 1.0)

    def missing(self, reference: Reference) -> tuple[float, float]:
        return 0.0, float(reference.can_be_checked)


class FinishRate:
    describes: ClassVar[str] = "share of attempts that end with an answer"
    is_rate: ClassVar[bool] = True

    def fraction(self, scored: ScoredTrajectory, task: Task, reference: Reference) -> tuple[float, float]:
        return _finished(scored), 1.0

    def missing(self, reference: Reference) -> tuple[float, float]:
        return 0.0, 1.0


class PassRateFinished:
    describes: ClassVar[str] = "mean verdict over the attempts that end with an answer and have one"
    is_rate: ClassVar[bool] = True

    def fraction(self, scored: ScoredTrajectory, task: Task, reference: Reference) -> tuple[float, float]:
        verdict = verdict_on(scored, reference)
        return (0.0, 0.0) if verdict is None else (_finished(scored) * verdict, _finished(scored))


class Grounded:
    describes: ClassVar[str] = "share of attempts whose answer holds a value that a tool showed"
    is_rate: ClassVar[bool] = True

    def fraction(self, scored: ScoredTrajectory, task: Task, reference: Reference) -> tuple[float, float]:
        return float(is_grounded(scored.trajectory, task.query)), 1.0

    def missing(self, reference: Reference) -> tuple[float, float]:
        return 0.0, 1.0


class ToolRecall:
    describes: ClassVar[str] = "share of a task's relevant tools that were called"
    is_rate: ClassVar[bool] = True

    def fraction(self, scored: ScoredTrajectory, task: Task, reference: Reference) -> tuple[float, float]:
        relevant = set(reference.relevant_tools)
        called = {call.name for step in scored.trajectory.steps for call in step.action.calls}
        return (len(relevant & called) / len(relevant), 1.0) if relevant else (0.0, 0.0)

    def missing(self, reference: Reference) -> tuple[float, float]:
        return 0.0, float(bool(reference.relevant_tools))


class CallsPerTask:
    describes: ClassVar[str] = "actions of an attempt, the last one included"
    is_rate: ClassVar[bool] = False

    def fraction(self, scored: ScoredTrajectory, task: Task, reference: Reference) -> tuple[float, float]:
        return float(len(scored.trajectory.steps)), 1.0


class TokensPerTask:
    describes: ClassVar[str] = "tokens sampled in an attempt"
    is_rate: ClassVar[bool] = False

    def fraction(self, scored: ScoredTrajectory, task: Task, reference: Reference) -> tuple[float, float]:
        """None of a policy behind an endpoint: its tokens are others."""
        conditions = scored.trajectory.conditions
        if conditions is not None and conditions.is_endpoint:
            return 0.0, 0.0
        return float(sum(len(step.action_ids) for step in scored.trajectory.steps)), 1.0


class CallSuccess:
    describes: ClassVar[str] = "share of calls (the last step apart) that succeeded"
    is_rate: ClassVar[bool] = True

    def fraction(self, scored: ScoredTrajectory, task: Task, reference: Reference) -> tuple[float, float]:
        success = [judgement.success for judgement in scored.judgements if judgement.success is not None]
        return float(sum(success)), float(len(success))


METRICS: Mapping[str, Metric] = {
    "pass_rate": PassRate(),
    "finish_rate": FinishRate(),
    "pass_rate_finished": PassRateFinished(),
    "tool_recall": ToolRecall(),
    "calls_per_task": CallsPerTask(),
    "tokens_per_task": TokensPerTask(),
    "call_success": CallSuccess(),
    "grounded": Grounded(),
}
"""In the order of tables."""


def verdict_on(scored: ScoredTrajectory, reference: Reference) -> float | None:
    """None where nobody can tell. At a task that has a check, a fault that left no verdict is a failure."""
    if scored.solved is None and reference.can_be_checked and not _finished(scored):
        return 0.0
    return scored.solved


def _finished(scored: ScoredTrajectory) -> float:
    return float(scored.trajectory.stop_reason is StopReason.finished)

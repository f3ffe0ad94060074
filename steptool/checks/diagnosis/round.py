"""What the rules of a diagnosis look at: the attempts of a round, what they earn, and the round before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from steptool.checks.diagnosis.counts import round_counts, task_counts, tool_counts
from steptool.checks.diagnosis.differences import discounted
from steptool.checks.diagnosis.findings import Diagnosed, Name, RoundCounts, Severity, TaskCounts, ToolCounts
from steptool.core.types import Sampling, ScoredTrajectory, Task, Trajectory
from steptool.policies.asked import Asked
from steptool.training.compared import Compared


@dataclass(frozen=True)
class Round:
    """What is known of a round. Attempts whose rewards are no numbers are left out: the gate names them."""

    name: str
    scored: Sequence[ScoredTrajectory]
    rewards: Sequence[Sequence[float]]
    gamma: float
    tasks: Mapping[str, Task] = field(default_factory=dict)
    """The round's tasks by id."""
    comparison: Compared | None = None
    """How an arm that learns from the round compares attempts; None where none does."""
    credited: Sequence[tuple[ScoredTrajectory, Sequence[float]]] = ()
    """The attempts that it learns from, and what it takes their steps to earn."""
    before: Sequence[ScoredTrajectory] = ()
    """Attempts of the previous round; empty for the first."""
    asked: Asked | None = None
    """What the engine said to the policy's canary; None where it was not asked."""
    shortened: Mapping[str, int] = field(default_factory=dict)
    """What the format shortened in prompts, a line each → tasks."""

    @property
    def trajectories(self) -> list[Trajectory]:
        return [item.trajectory for item in self.scored]

    @property
    def is_imported(self) -> bool:
        """Whether its attempts come from traces: they are imitated, not compared."""
        return bool(self.scored) and self.sampling is None

    @property
    def sampling(self) -> Sampling | None:
        """None where nothing was sampled."""
        return next((each.conditions.sampling for each in self.trajectories if each.conditions), None)

    @property
    def policy(self) -> str:
        """Folder of the policy that it was sampled from."""
        return self.trajectories[0].policy.name if self.scored else ""

    @property
    def dtype(self) -> Literal["float32", "bfloat16"]:
        """Type of the engine's computation."""
        return next((c.dtype for each in self.trajectories if (c := each.conditions) and c.dtype), "bfloat16")

    @property
    def arm(self) -> str:
        """That it was sampled from, by the name of its folder."""
        return self.policy.rpartition("/")[2]

    @cached_property
    def counts(self) -> RoundCounts:
        return round_counts(self.scored)

    @cached_property
    def previous(self) -> RoundCounts | None:
        return round_counts(self.before) if self.before else None

    @cached_property
    def returns(self) -> list[float]:
        return [discounted(own, self.gamma) for own in self.rewards]

    @cached_property
    def by_task(self) -> TaskCounts:
        return task_counts(self.scored, self.returns)

    @cached_property
    def tools(self) -> tuple[ToolCounts, ...]:
        return tool_counts(self.trajectories, self.tasks)


def fine(name: Name, says: str, numbers: Mapping[str, float] | None = None) -> Diagnosed:
    return Diagnosed(name=name, severity=Severity.fine, says=says, numbers=dict(numbers or {}))


def graded(value: float, *, warning: float, fault: float) -> Severity:
    """Fine up to `warning`, a fault from `fault` on."""
    if value >= fault:
        return Severity.fault
    return Severity.warning if value > warning else Severity.fine

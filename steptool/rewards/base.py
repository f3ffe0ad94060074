"""The protocol of reward forms. A form turns the judgements of an attempt into one reward for each step.

    class Mine:
        class Config(Settings):
            gamma: Fraction = 0.99      the discount between steps; the methods read it here
        def __init__(self, config: Config): ...

        needs_verdict: ClassVar[bool] = False       set it if the form means something without a verdict on an attempt:
                                                    data without verdicts is refused for any other form

Rewards are computed when they are needed and never stored, so other weights need no new annotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from steptool.core.types import ScoredTrajectory


class RewardForm(Protocol):
    @property
    def gamma(self) -> float:
        """The discount between steps, in [0, 1]."""
        ...

    def rewards(self, scored: ScoredTrajectory) -> Sequence[float]:
        """One number a step."""
        ...


@runtime_checkable
class Chooses(Protocol):
    """A form that is several: which one rewards a task follows from the attempts at it."""

    def choose(self, attempts: Sequence[ScoredTrajectory]) -> RewardForm:
        """The form of all `attempts`, which are at one task: they are compared with each other."""
        ...


def forms_of(form: RewardForm, scored: Sequence[ScoredTrajectory]) -> list[RewardForm]:
    """What rewards each of the attempts, in their order: `form` itself, or what it chooses for their task."""
    if not isinstance(form, Chooses):
        return [form] * len(scored)
    by_task: dict[str, list[ScoredTrajectory]] = {}
    for record in scored:
        by_task.setdefault(record.trajectory.task_id, []).append(record)
    chosen = {task: form.choose(attempts) for task, attempts in by_task.items()}
    return [chosen[record.trajectory.task_id] for record in scored]


def rewards_of(form: RewardForm, scored: Sequence[ScoredTrajectory]) -> list[Sequence[float]]:
    """One number a step of each of the attempts, in their order."""
    return [own.rewards(record) for own, record in zip(forms_of(form, scored), scored, strict=True)]


def needs_verdict(form: RewardForm) -> bool:
    """Whether an attempt without a verdict would be taken for one that failed."""
    return bool(getattr(form, "needs_verdict", True))


@runtime_checkable
class HasClosedForm(Protocol):
    """A form whose discounted sum has a closed form; the data gate compares the rewards with it."""

    def expected_return(self, scored: ScoredTrajectory) -> float:
        """Σ γ^t r_t in closed form."""
        ...


@runtime_checkable
class Shapes(Protocol):
    """A form that may add differences of a potential of states between steps (Ng, Harada & Russell 1999)."""

    @property
    def shapes(self) -> bool:
        """Whether it does. They cancel over an attempt only where nothing but steps is discounted."""
        ...

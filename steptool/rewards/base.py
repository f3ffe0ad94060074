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


@runtime_checkable
class Fits(Protocol):
    """A form that must see the data before it can reward any of it: its weights, or its scale, follow from them."""

    def fitted(self, scored: Sequence[ScoredTrajectory]) -> RewardForm:
        """The form that rewards attempts, fitted to `scored`: all that a round or a training has, not those of one
        task. The same data in another order give the same form. Raises DataError for data that it cannot be fitted to.
        """
        ...


def fitted(form: RewardForm, scored: Sequence[ScoredTrajectory]) -> RewardForm:
    """`form`, fitted to the data where it is one that must be. Whoever asks for rewards of a part of the data, such as
    of one task at a time, fits the form to the whole first."""
    return form.fitted(scored) if isinstance(form, Fits) else form


def all_judged(attempts: Sequence[ScoredTrajectory]) -> bool:
    """Whether each of the attempts at a task has a verdict that no fault ended; False where a fault ended all."""
    judged = [attempt.solved is not None for attempt in attempts if not attempt.trajectory.stop_reason.broken]
    return bool(judged) and all(judged)


def forms_of(form: RewardForm, scored: Sequence[ScoredTrajectory]) -> list[RewardForm]:
    """What rewards each of the attempts, in their order: `form`, fitted to them, or what it chooses for their task."""
    form = fitted(form, scored)
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

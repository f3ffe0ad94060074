"""The protocol of reward forms. A form turns the judgements of an attempt into one reward for each step.

    class Mine:
        class Config(Settings):
            gamma: Fraction = 0.99      the discount between steps; the methods read it here
        def __init__(self, config: Config): ...

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

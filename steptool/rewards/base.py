"""From judgements to one reward a step: the protocol that every reward form speaks.

    class Mine:
        class Config(Settings):
            gamma: Fraction = 0.99      the discount between steps; the methods read it here
        def __init__(self, config: Config): ...

Derived, never stored: re-weighting costs no re-annotation.
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
    """A form whose discounted sum is known in advance; the data gate holds the rewards against it."""

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

"""What is measured of an attempt: the protocol that every metric of a project speaks.

metrics: {retries: {use: 'my_pkg.metrics:Retries'}}

class Retries:
    class Config(Settings): ...
    def __init__(self, config: Config): ...
"""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

from steptool.core.types import Reference, ScoredTrajectory, Task


class Metric(Protocol):
    describes: ClassVar[str]
    """What it says, in a few words: the report explains it by them."""
    is_rate: ClassVar[bool]
    """Whether it lies in [0, 1]."""

    def fraction(self, scored: ScoredTrajectory, task: Task, reference: Reference) -> tuple[float, float]:
        """Numerator and denominator of one attempt. The metric of a group is the ratio of the sums over its tasks."""
        ...


@runtime_checkable
class CountsMissing(Protocol):
    """A metric over all attempts that were to be made; others leave out one that is missing."""

    def missing(self, reference: Reference) -> tuple[float, float]:
        """Numerator and denominator of an attempt that is not there."""
        ...

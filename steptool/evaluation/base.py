"""The protocol of metrics. A metric measures single attempts; evaluation adds them up.

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
    """A short description, which the report shows."""
    is_rate: ClassVar[bool]
    """Whether it lies in [0, 1]."""

    def fraction(self, scored: ScoredTrajectory, task: Task, reference: Reference) -> tuple[float, float]:
        """Numerator and denominator of one attempt. The metric of a group is the ratio of the sums over its tasks."""
        ...


@runtime_checkable
class CountsMissing(Protocol):
    """A metric that counts missing attempts too. Other metrics leave them out."""

    def missing(self, reference: Reference) -> tuple[float, float]:
        """Numerator and denominator of a missing attempt."""
        ...

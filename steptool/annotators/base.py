"""The protocol of annotators. An annotator scores the steps of an attempt.

class Judge:
    class Config(Settings): ...
    def __init__(self, config: Config): ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from steptool.core.types import Judgement, Reference, Task, Trajectory


class Annotator(Protocol):
    async def annotate(self, trajectory: Trajectory, task: Task, reference: Reference) -> Sequence[Judgement]:
        """One judgement a step: `success` and `contribution` of every step but the last, `solved` of the last.

        `solved` is the outcome that the session recorded, unless that is None and the annotator can tell. One that can
        gives 0 to an attempt without an answer; where nobody can tell it stays None, which never counts as 0.
        """
        ...


@runtime_checkable
class LooksAhead(Protocol):
    """An annotator that judges many attempts together at less cost."""

    def look_ahead(self, trajectories: Sequence[Trajectory]) -> None:
        """It will be asked about each of these next; called before the first."""
        ...


@runtime_checkable
class Counts(Protocol):
    """An annotator that may fail to judge, and says how often it did."""

    def counts(self) -> Mapping[str, float]:
        """Name → number, of all that it has done so far."""
        ...

"""What scores the steps of an attempt: the protocol that every annotator speaks.

class Judge:
    class Config(Settings): ...
    def __init__(self, config: Config): ...

    needs_outcome: ClassVar[bool] = True      where it knows no verdict but the one that the session recorded, so
                                              that tasks which a judge must decide are refused before anything is
                                              sampled; without it, it is taken to be such a judge
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from steptool.core.types import Judgement, Reference, Task, Trajectory


class Annotator(Protocol):
    async def annotate(self, trajectory: Trajectory, task: Task, reference: Reference) -> Sequence[Judgement]:
        """One judgement a step: `success` and `contribution` of every step but the last, `solved` of the last.

        `solved` is the outcome that the session recorded, unless that is None and the annotator can tell.
        """
        ...

"""An annotator: a call contributed if its reply was no error and no other call had said the same.

annotate: {use: 'courteous:Courteous'}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from steptool.core.plugins import NoSettings
from steptool.core.types import Judgement, Reference, Task, Trajectory


class Courteous:
    name: ClassVar[str] = "courteous"

    def __init__(self, config: NoSettings) -> None:
        self.config = config

    async def annotate(self, trajectory: Trajectory, task: Task, reference: Reference) -> Sequence[Judgement]:
        judgements, seen = [], set[str]()
        for step in trajectory.steps[:-1]:
            texts = {observation.text for observation in step.observations if observation.error is None}
            scores: dict[str, float | None] = {"success": float(bool(texts)), "contribution": float(bool(texts - seen))}
            judgements.append(Judgement(scores=scores, reason="said something new" if texts - seen else "nothing new"))
            seen |= texts
        last = [Judgement(scores={"solved": trajectory.outcome.solved}, reason=trajectory.outcome.evidence)]
        return [*judgements, *last[: len(trajectory.steps)]]

"""A metric: the share of calls that repeat an earlier call of the attempt.

metrics: {repeats: {use: 'repeats:Repeats'}}
"""

from __future__ import annotations

from typing import ClassVar

from steptool.core.plugins import NoSettings
from steptool.core.types import Reference, ScoredTrajectory, Task


class Repeats:
    describes: ClassVar[str] = "share of calls that repeat an earlier one"
    is_rate: ClassVar[bool] = True

    def __init__(self, config: NoSettings) -> None:
        self.config = config

    def fraction(self, scored: ScoredTrajectory, task: Task, reference: Reference) -> tuple[float, float]:
        calls = [call.model_dump_json() for step in scored.trajectory.steps for call in step.action.calls]
        return float(len(calls) - len(set(calls))), float(len(calls))

"""A reward form: the verdict at the end, and nothing on the way.

reward: {use: 'verdict:Verdict'}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from steptool.core.fields import Fraction, Settings
from steptool.core.types import ScoredTrajectory


class Verdict:
    name: ClassVar[str] = "verdict"

    class Config(Settings):
        gamma: Fraction = 1.0

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def gamma(self) -> float:
        return self.config.gamma

    def rewards(self, scored: ScoredTrajectory) -> Sequence[float]:
        steps = len(scored.judgements)
        return [*[0.0] * (steps - 1), scored.solved or 0.0] if steps else []

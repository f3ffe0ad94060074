"""A search that tries twice, and gives the attempt that ended in an answer; the first where both or neither did.

search: {use: 'twice:Twice'}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from steptool.core.plugins import NoSettings
from steptool.core.types import StopReason, Trajectory
from steptool.rollouts.base import Attempt
from steptool.rollouts.chain import Chain


class Twice:
    name: ClassVar[str] = "twice"

    def __init__(self, config: NoSettings) -> None:
        self.config = config
        self._chain = Chain(config)

    async def attempt(self, attempt: Attempt) -> Sequence[Trajectory]:
        tries = [attempt, replace(attempt, seed=attempt.seed + 1_000_003)]
        branches = [made for each in tries for made in await self._chain.attempt(each)]
        return sorted(branches, key=lambda made: made.stop_reason is not StopReason.finished)

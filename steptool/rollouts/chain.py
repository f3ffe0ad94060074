"""The plainest search: one action after the other, until the attempt ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from steptool.core.plugins import NoSettings
from steptool.core.types import Trajectory
from steptool.rollouts.base import Attempt
from steptool.rollouts.branch import Branch


class Chain:
    name: ClassVar[str] = "chain"

    def __init__(self, config: NoSettings) -> None:
        self.config = config

    async def attempt(self, attempt: Attempt) -> Sequence[Trajectory]:
        async with Branch(attempt) as branch:
            ending = branch.begin()
            while ending is None:
                ending = await branch.act(len(branch.steps))
            return [await branch.end(ending)]

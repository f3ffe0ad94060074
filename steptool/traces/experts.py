"""Demonstrations by the experts of the world itself, where it has any."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from steptool.core.fields import Fraction, Positive, Settings
from steptool.core.types import Task, Trajectory
from steptool.worlds.base import Demonstrates, World


class Experts:
    name: ClassVar[str] = "experts"

    class Config(Settings):
        count: Positive = 320
        flawed: Fraction = 0.22
        """Share of the demonstrations that end unsolved."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def read(self, world: World, tasks: Mapping[str, Task], seed: int) -> Iterable[Trajectory]:
        """None of a world without experts. Raises InputError where it cannot show as many tasks."""
        if not isinstance(world, Demonstrates):
            return ()
        return world.demonstrations(self.config.count, self.config.flawed, seed)

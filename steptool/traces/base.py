"""Attempts that were not sampled here, for demonstrations: the protocol that every source speaks.

class Log:
    class Config(Settings): ...
    def __init__(self, config: Config): ...
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from steptool.core.types import Task, Trajectory
from steptool.worlds.base import World


class TraceSource(Protocol):
    # Optional: `costs: str`, what reading it costs in a few words. Such a source is read by `steptool prepare` alone.

    def read(self, world: World, tasks: Mapping[str, Task], seed: int) -> Iterable[Trajectory]:
        """Trajectories without token ids, of `tasks` by their id. Raises DataError for what cannot be read."""
        ...

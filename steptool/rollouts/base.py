"""How a task is attempted: the protocol that every search speaks.

class Dfsdt:
    class Config(Settings): ...
    def __init__(self, config: Config): ...
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from steptool.core.types import Conditions, Revision, Task, Trajectory
from steptool.engines.base import Generation
from steptool.formats.base import Format
from steptool.worlds.base import Session

Act = Callable[[Sequence[int], int, int], Awaitable[Generation]]
"""Sample one action: the whole token stream so far, the most tokens of the action, and a seed."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at one task, before it is made."""

    task: Task
    open: Callable[[], Session]
    """A fresh session. A search that tries several branches opens one for each."""
    act: Act
    format: Format
    conditions: Conditions
    policy: Revision
    seed: int
    number: int
    """Which of the attempts at this task, from 0."""
    tool_timeout_s: float


class Search(Protocol):
    async def attempt(self, attempt: Attempt) -> Sequence[Trajectory]:
        """Raises nothing but cancellation and Ctrl-C: a bad attempt is a trajectory with a stop reason.

        The first is the answer of the search; others are branches that it tried. Who runs the search gives all of them
        the same `Trajectory.search`.
        """
        ...

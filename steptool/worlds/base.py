"""Where tools live: the protocol that every world speaks."""

from __future__ import annotations

from typing import Any, Protocol

from steptool.core.types import Observation, Revision, Task


class Session(Protocol):
    """One attempt at one task; its state is its own."""

    async def call(self, name: str, arguments: dict[str, Any]) -> Observation:
        """Run one tool. A tool that fails answers with `Observation.error`; only a broken world raises WorldError."""
        ...

    def verify(self, answer: str | None) -> float | None:
        """1.0 solved, 0.0 not solved, None where this world cannot tell. An absent answer is never solved."""
        ...


class World(Protocol):
    """What `prepare` refuses in the tasks of a world is in `steptool.worlds.checks`."""

    revision: Revision
    """Name and content hash; ends up in every trajectory."""

    def tasks(self, subset: str, split: str = "test") -> list[Task]:
        """Tasks of one subset; `split` is train, dev or test. Deterministic order."""
        ...

    def all_tasks(self, split: str = "test") -> list[Task]:
        """Tasks of all subsets, interleaved: any first n of them are spread over the subsets."""
        ...

    def reset(self, task: Task, seed: int) -> Session:
        """A fresh session: same task and seed, same replies."""
        ...

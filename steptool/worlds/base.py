"""The protocol of worlds. A world has tasks, runs the tools that they offer, and judges attempts.

    class Shop:
        class Config(Settings): ...
        def __init__(self, config: Config, seed: int): ...

Its revision is computed (`steptool.core.plugins`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol, runtime_checkable

from steptool.core.types import Observation, Outcome, Reference, Task, ToolCall, Trajectory

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")


class Session(Protocol):
    """One attempt at one task; its state is its own."""

    async def call(self, call: ToolCall) -> Observation:
        """Run one tool. A tool that fails answers with `Observation.error`; only a broken world raises WorldError."""
        ...

    async def say(self, message: str) -> str | None:
        """The policy spoke to the user without calling a tool: the user's next message, None where there is none."""
        ...

    async def close(self, answer: str | None) -> Outcome:
        """End the attempt and judge it, while the state that its calls made is alive. Called once, whatever ended it.

        `answer` is what the policy answered, None where it did not: an absent answer is never solved.
        """
        ...


class World(Protocol):
    """What `prepare` refuses in the tasks of a world is in `steptool.worlds.checks`.

    Optional: `search: ClassVar[str]`, the name of the one search that can make its attempts, such as `agent` where its
    sessions act by themselves (`Acts`). `metrics: ClassVar[Mapping[str, Mapping[str, Any]]]`, what its benchmark
    measures beside the metrics of this package, as `metrics` of params.yaml has it; its module imports their classes.
    """

    def tasks(self, split: Split) -> Sequence[Task]:
        """Every task of a split, its groups interleaved, so that any first n of them are spread over the groups."""
        ...

    def reference(self, task: Task) -> Reference:
        """What is known about a task and must not be shown to a policy."""
        ...

    def open(self, task: Task, seed: int) -> Session:
        """A fresh session: same task and seed, same replies."""
        ...


@runtime_checkable
class Demonstrates(Protocol):
    """A world that has experts."""

    def demonstrations(self, count: int, flawed: float, seed: int) -> Iterable[Trajectory]:
        """Attempts of experts at `count` training tasks, of which the share `flawed` ends unsolved."""
        ...


@runtime_checkable
class Ends(Protocol):
    """A world, a search or an annotator that starts what attempts share: processes, connections, a recording."""

    def end(self) -> None:
        """End all that. May be called twice."""
        ...


@runtime_checkable
class Acts(Protocol):
    """A session whose attempt is made by a program of its own, which asks the policy over HTTP (`search: agent`)."""

    async def run(self, base_url: str, key: str) -> str | None:
        """Start the program with the policy's address and the key of this attempt, and wait until it has ended.

        Returns the answer that it gave, None where it gave none of its own: then its last message counts. Where this is
        cancelled, the program and every process that it started is ended. Raises AgentFailed where it fails by itself,
        and WorldError for what is broken beside it.
        """
        ...

    def saw(self, calls: Sequence[tuple[ToolCall, Observation]]) -> None:
        """The calls that the program made and what its tools replied, for the checks; told before `close`."""
        ...


@runtime_checkable
class HasState(Protocol):
    """A session that can tell in which state its world is."""

    def state(self) -> str | None:
        """A short text, such as a hash, that is equal where every later call would bring the same; None for the state
        that a task begins in. Asked before each action, so it must be quick. No policy sees it; credit is compared by
        it (`steptool.trajectories.states`)."""
        ...


@runtime_checkable
class Forks(Protocol):
    """A session that can be copied while it is alive, so that a search can go on from one state in several ways."""

    def fork(self) -> Session | None:
        """Another session in the state of this one; what is done in one, the other never sees. Each is closed by
        itself. Asked for before an action, so it must be quick. None where it cannot: the search then makes the calls
        again in a fresh session."""
        ...


class AgentFailed(Exception):
    """A program that makes an attempt has ended with a failure. The message says how, in a line."""

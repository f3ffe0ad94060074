"""The protocol of toolboxes: where the tools of a project come from, and how one attempt reaches them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from steptool.core.types import Observation, Tool, ToolCall

PASSES = re.compile(r"timeout|crashed|broken_reply|server_died|html|http_(401|403|408|425|429|5\d\d)")
"""Kinds of errors that another try may not meet: the tool was not there, was busy, or did not know who asked."""


@dataclass(frozen=True)
class Called:
    """A call that was made, as a check of the project sees it."""

    name: str
    arguments: dict[str, Any]
    reply: str
    error: str | None


class Connection(Protocol):
    """The tools of one attempt, with the state that its calls make: a process, a connection, a transaction.

    It starts nothing before its first call.
    """

    async def call(self, call: ToolCall) -> Observation:
        """Run one of the toolbox's tools. Whatever the tool does (it refuses its arguments, fails, floods, dies) is an
        observation with an `error`; only what is broken beside the tools raises WorldError.

        Where this is cancelled, because the call took too long, what runs is ended; the next call works again.
        """
        ...

    async def close(self) -> None:
        """End what the attempt started. Called once, whatever ended it; also where nothing was called."""
        ...


@runtime_checkable
class Judges(Connection, Protocol):
    """A connection that runs check functions beside its tools, where they see the state that the calls made."""

    async def judge(self, check: str, answer: str, calls: Sequence[Called]) -> float:
        """What the function `check` says of an attempt, from 0 to 1. Raises WorldError where it raises or returns
        something else."""
        ...


class Toolbox(Protocol):
    tools: Mapping[str, Tool]
    """By name, in the order in which they are offered. A name may be any printable text; a format maps those that it
    cannot write."""

    def changes_state(self, name: str) -> bool:
        """Whether a call of this tool may change what later calls of the attempt reply. A recording of a call is found
        by the call and by the calls before it that change state."""
        ...

    def connect(self) -> Connection:
        """A connection for one attempt."""
        ...

    def close(self) -> None:
        """End what the connections share. May be called twice."""
        ...

"""A recorded conversation, from wherever it comes: what every reader of traces returns.

class Langfuse:
    name: ClassVar[str] = "langfuse"
        class Config(Settings): ...       `steptool traces import SOURCE --from langfuse --set key=value`
    def __init__(self, config: Config): ...
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from steptool.core.messages import Message
from steptool.core.types import AnswerCheck, Frozen, Tool


class Conversation(Frozen):
    """One attempt at one task, as its source has it; nothing is scrubbed yet."""

    where: str
    """Where it stands: FILE:LINE, or the id of a trace. For messages alone."""
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    """What was offered; empty where the source does not say: it is then inferred from the calls."""
    model: str = ""
    """That acted, by the name in the source."""
    group: str = ""
    """A tag of the source that tables shall be split by, where it has one."""
    answer: str | None = None
    """The final answer, where the source keeps it apart from the last message."""
    solved: float | None = None
    """The label of the source (feedback, a score, a verdict) from 0 to 1; None where it has none."""
    evidence: str = ""
    """Where the label was read from, such as `feedback "correct"`."""
    check: AnswerCheck | None = None
    """What the source expects as an answer, where it says so."""


class Skipped(Frozen):
    """A record of a source that is no conversation to learn from."""

    where: str
    reason: str
    """The same words for the same reason: the report counts them."""
    is_broken: bool = False
    """Whether the record itself cannot be read: an error, unless `--lenient` is given."""


class Unusable(Exception):
    """Raised within a reader for a record that is no conversation to learn from: its Skipped."""

    def __init__(self, reason: str, *, is_broken: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.is_broken = reason, is_broken


class Reader(Protocol):
    def read(self, source: str) -> Iterable[Conversation | Skipped]:
        """The conversations of a file, folder or server, in its order. One broken record is a Skipped, not an end.

        Raises InputError or DataError for a source that is missing, of the wrong kind, or does not answer.
        """
        ...


@runtime_checkable
class Recognises(Protocol):
    """A reader whose class can tell its sources from others, so that `--from` may be left out."""

    @staticmethod
    def recognises(source: str, record: Any) -> bool:
        """`record`: the first one of a file or a folder of JSON, None of any other source."""
        ...

"""The same conversation twice is one attempt; so is one that is the beginning of another.

A log of requests holds an attempt once for each of its requests: `a`, `a b`, `a b c`. The longest is the attempt.

    kept      new                            what becomes of it
    a b       a b                            left out; labels, checks and tools that only it has are kept
    a b       a                              left out
    a         a b                            kept instead
    a b       a c                            kept: two attempts at one task
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from steptool.core.types import AnswerCheck
from steptool.traces.steps import UNKNOWN_MODEL, Attempt

Row = TypeVar("Row")


@dataclass
class _Beside:
    """What the copies of an attempt say beside the conversation."""

    tools: tuple[str, ...] | None = None
    model: str = UNKNOWN_MODEL
    group: str = ""
    labels: dict[float, str] = field(default_factory=dict)
    """Evidence by label."""
    check: AnswerCheck | None = None


class Merging:
    """Numbers the attempts that it keeps, from 0; holds a few numbers of each."""

    def __init__(self) -> None:
        self.copies = 0
        self.beginnings = 0
        self.contradictions = 0
        """Attempts whose copies have different labels."""
        self._rows = 0
        self._by_end: dict[int, int] = {}
        self._within: set[int] = set()
        """Beginnings of what is kept."""
        self._superseded: set[int] = set()
        self._beside: dict[int, _Beside] = {}

    @property
    def kept(self) -> int:
        return self._rows - len(self._superseded)

    def add(self, attempt: Attempt) -> bool:
        """Whether it is kept for now."""
        *inner, end = attempt.keys()
        if end in self._by_end:
            self.copies += 1
            self._note(self._by_end[end], attempt)
            return False
        if end in self._within:
            self.beginnings += 1
            return False
        shorter = {self._by_end.pop(key) for key in inner if key in self._by_end}
        self.beginnings += len(shorter)
        self._superseded |= shorter
        self._within.update(inner)
        self._by_end[end] = self._rows
        self._rows += 1
        return True

    def remaining(self, rows: Iterable[Row]) -> Iterator[tuple[int, Row]]:
        """Those of the kept that no longer one has superseded, by their numbers."""
        return ((number, row) for number, row in enumerate(rows) if number not in self._superseded)

    def completed(self, number: int, attempt: Attempt) -> Attempt:
        """With what its copies know. Labels that contradict each other say nothing."""
        beside = self._beside.pop(number, None)
        if beside is None:
            return attempt
        labels = beside.labels | ({} if attempt.solved is None else {attempt.solved: attempt.evidence})
        self.contradictions += len(labels) > 1
        solved = next(iter(labels)) if len(labels) == 1 else None
        return attempt.model_copy(
            update={
                "tools": beside.tools if attempt.tools is None else attempt.tools,
                "model": beside.model if attempt.model == UNKNOWN_MODEL else attempt.model,
                "group": attempt.group or beside.group,
                "check": attempt.check or beside.check,
                "solved": solved,
                "evidence": "labels that contradict each other" if len(labels) > 1 else labels.get(solved or 0.0, ""),
            }
        )

    def _note(self, number: int, copy: Attempt) -> None:
        beside = self._beside.setdefault(number, _Beside())
        beside.tools = beside.tools if copy.tools is None else copy.tools
        beside.model = beside.model if copy.model == UNKNOWN_MODEL else copy.model
        beside.group, beside.check = beside.group or copy.group, beside.check or copy.check
        if copy.solved is not None:
            beside.labels.setdefault(copy.solved, copy.evidence)

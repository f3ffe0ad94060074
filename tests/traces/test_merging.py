"""The same conversation twice is one attempt, and so is the beginning of another.

rows kept       0 a b       1 a c       2 a b d (instead of 0)
"""

from __future__ import annotations

from typing import Any

from steptool.core.types import AnswerCheck
from steptool.traces.merging import Merging
from steptool.traces.steps import Attempt
from tests.traces.test_steps import FIND, read, says, tool, user

AB = (user("q"), FIND, tool("a", "1"), says("9.5"))
ABD = (*AB, user("and now?"), says("10"))
AC = (user("q"), FIND, tool("b", "1"), says("9.5"))


def merged(*attempts: Attempt) -> tuple[Merging, list[tuple[int, Attempt]]]:
    merging = Merging()
    rows = [attempt for attempt in attempts if merging.add(attempt)]
    return merging, [(number, merging.completed(number, row)) for number, row in merging.remaining(rows)]


def test_a_copy_is_left_out_and_another_ending_is_another_attempt() -> None:
    merging, rows = merged(read(*AB), read(*AC), read(*AB))
    assert [number for number, _ in rows] == [0, 1]
    assert (merging.kept, merging.copies, merging.beginnings) == (2, 1, 0)


def test_the_longest_is_kept_whatever_comes_first() -> None:
    parts = [read(*ABD[:length]) for length in (2, 4, 6)]
    for order in (parts, parts[::-1], [parts[1], parts[2], parts[0]]):
        merging, rows = merged(*order, read(*AC))
        assert [row.steps for _, row in rows] == [parts[2].steps, read(*AC).steps]
        assert (merging.kept, merging.copies, merging.beginnings) == (2, 0, 2)


def test_what_only_a_copy_knows_is_kept() -> None:
    check = AnswerCheck(kind="number", expected=9.5)
    beside: dict[str, Any] = {"solved": 1.0, "evidence": "feedback", "check": check, "model": "m", "group": "g"}
    merging, [(_, row)] = merged(read(*AB), read(*AB, **beside))
    assert (row.solved, row.evidence, row.check, row.model, row.group) == (1.0, "feedback", check, "m", "g")
    assert merging.contradictions == 0


def test_labels_that_contradict_each_other_say_nothing() -> None:
    merging, [(_, row)] = merged(read(*AB, solved=1.0), read(*AB, solved=0.0))
    assert row.solved is None
    assert merging.contradictions == 1
    assert merged(read(*AB, solved=0.0), read(*AB, solved=0.0))[1][0][1].solved == 0.0

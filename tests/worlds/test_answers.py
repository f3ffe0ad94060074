"""How answers are checked, and what an attempt comes to.

check          answer     solved
number 12.5    $12.50     1
number 12.5    twelve     0
number 12.5    none       0
judge, none    12.5       nobody can tell
judge, none    none       0
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from steptool.core.types import AnswerCheck, Outcome
from steptool.worlds.answers import is_correct, outcome_of

NUMBER = AnswerCheck(kind="number", expected=12.5, tolerance=0.005)
JUDGE = AnswerCheck(kind="judge")


@pytest.mark.parametrize(
    ("kind", "expected", "accepted", "refused"),
    [
        (
            "number",
            12.5,
            ["12.5", " $12.50 ", "12.5 USD", "€12.5", "12.50", "12.5."],
            ["12.5 or 13", "12.6", "125", "twelve", "", "12.5 13", "-12.5", "1e400", "9" * 400, "12,5"],
        ),
        ("number", 1250.0, ["1250", "1,250", "$1,250.00"], ["1.250", "1 250"]),
        (
            "text",
            "Nora Lund",
            ["nora lund", '"Nora Lund."', " NORA  LUND "],
            ["Nora", "Nora Lund or Peter", "Nora Lund, Peter"],
        ),
        (
            "set",
            ["Amber Inn", "Misty Inn"],
            ["Amber Inn, Misty Inn", '["Misty Inn", "Amber Inn"]', "misty inn and amber inn", "Amber Inn\nMisty Inn"],
            ["Amber Inn", "Amber Inn, Misty Inn, Silver Inn", "Amber Inn, Amber Inn", "[", "[1, 2]", "", "[" * 400],
        ),
    ],
)
def test_answers_are_checked_exactly_but_not_pedantically(
    kind: Any, expected: Any, accepted: list[str], refused: list[str]
) -> None:
    check = AnswerCheck(kind=kind, expected=expected, tolerance=0.005 if kind == "number" else 0.0)
    assert [answer for answer in accepted if not is_correct(check, answer)] == []
    assert [answer for answer in refused if is_correct(check, answer)] == []


@pytest.mark.parametrize(
    ("check", "answer", "solved", "evidence"),
    [
        (NUMBER, "$12.50", 1.0, "expected 12.5, answered $12.50"),
        (NUMBER, "twelve", 0.0, "expected 12.5, answered twelve"),
        (NUMBER, None, 0.0, "no answer"),
        (AnswerCheck(kind="set", expected=["A", "B"]), "b and a", 1.0, 'expected ["A", "B"], answered b and a'),
        *((check, answer, None, "only a judge can tell") for check in (JUDGE, None) for answer in ("12.5", None)),
    ],
)
def test_an_attempt_comes_to_what_its_answer_does(
    check: AnswerCheck | None, answer: str | None, solved: float | None, evidence: str
) -> None:
    assert outcome_of(check, answer) == Outcome(solved=solved, evidence=evidence)


@pytest.mark.parametrize("answer", ["x" * 1_000_000, "\x1b[2J", "\ud800", "a\n\n b", ""])
def test_evidence_is_a_short_line_that_can_be_stored(answer: str) -> None:
    evidence = outcome_of(NUMBER, answer).evidence
    assert len(evidence) < 120
    assert evidence.isprintable()
    assert json.loads(json.dumps(evidence).encode("utf-8")) == evidence

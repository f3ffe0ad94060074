"""Checks a final answer against what a task expects: exact, but forgiving about how it is written. For every world.

expected         accepted                         where it need not be strict     refused
12.5 (number)    12.5   $12.50   12.5 USD         It costs twelve and a half.     12.5 or 13   not 12.5
Nora Lund        nora lund   "Nora Lund."         The author is Nora Lund.        Nora Lund or Peter Carter
{A, B} (set)     A, B   ["B", "A"]   A and B      There are two: A, and also B.   A   A, B, C

What prose may say is read by `steptool.worlds.prose`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from steptool.core.errors import printable
from steptool.core.types import MAX_ANSWER, AnswerCheck, Outcome
from steptool.worlds.prose.names import names_exactly
from steptool.worlds.prose.numbers import said_number

_NUMBER = re.compile(r"[$€£]?\s*(-?\d{1,3}(?:,\d{3})+(?:\.\d+)?|-?\d+(?:\.\d+)?)\s*(?:[$€£%°]|°?[A-Za-z]{1,12})?")

MAX_PROSE = 2_000
"""Characters of an answer in prose; a longer one is wrong."""
SHOWN = 80
"""Characters of an answer that the evidence shows."""
NO_ANSWER = Outcome(solved=0.0, evidence="no answer")
"""What an attempt without an answer comes to, at a task that has a check."""


def outcome_of(check: AnswerCheck | None, answer: str | None, question: str = "") -> Outcome:
    """Judge `answer` to `question`. An absent answer is never right. Without an exact check nothing is known, with or
    without one."""
    if check is None or check.kind == "judge":
        return Outcome(evidence="only a judge can tell")
    if answer is None:
        return NO_ANSWER
    solved = 1.0 if is_correct(check, answer, question) else 0.0
    return Outcome(solved=solved, evidence=f"expected {_shown(check.expected)}, answered {_shown(answer)}")


def _shown(value: Any) -> str:
    text = printable(" ".join(value.split()) if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def is_correct(check: AnswerCheck, answer: str, question: str = "") -> bool:
    """Whether `answer` is what an exact check (text, number or set) expects. `question` is what was asked: prose may
    repeat its words and numbers."""
    if check.strict:
        return _is_exactly(check, answer)
    if len(answer) > MAX_PROSE:
        return False
    if check.kind != "number":
        names = check.expected if check.kind == "set" else [str(check.expected)]
        return _is_exactly(check, answer) or names_exactly(names, answer, question)
    said = said_number(answer, question)
    return _is_exactly(check, answer) if said is None else _is_number(check, said)


def _is_exactly(check: AnswerCheck, answer: str) -> bool:
    if len(answer) > MAX_ANSWER:
        return False
    if check.kind == "number":
        found = _NUMBER.fullmatch(_plain(answer))
        return found is not None and _is_number(check, float(found[1].replace(",", "")))
    if check.kind == "set":
        given = _items(answer)
        return len(given) == len(check.expected) and set(given) == {_plain(item) for item in check.expected}
    return _plain(answer) == _plain(str(check.expected))


def _is_number(check: AnswerCheck, value: float) -> bool:
    return abs(value - float(check.expected)) <= check.tolerance + 1e-9


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).lstrip(" \"'").rstrip(" .\"'")  # `.5` is not 5


def _items(answer: str) -> list[str]:
    if answer.lstrip().startswith("["):
        try:
            parsed = json.loads(answer)
        except (json.JSONDecodeError, RecursionError):
            return []
        return [_plain(str(item)) for item in parsed]
    return [_plain(part) for part in re.split(r",|;|\n|\band\b", answer) if part.strip()]

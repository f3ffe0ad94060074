"""Checks a final answer against what a task expects: exact, but forgiving about how it is written. For every world.

expected         accepted                         refused
12.5 (number)    12.5   $12.50   12.5 USD         12.5 or 13   twelve
Nora Lund        nora lund   "Nora Lund."         Nora Lund or Peter Carter
{A, B} (set)     A, B   ["B", "A"]   A and B      A   A, B, C
"""

from __future__ import annotations

import json
import re
from typing import Any

from steptool.core.errors import printable
from steptool.core.types import MAX_ANSWER, AnswerCheck, Outcome

_NUMBER = re.compile(r"[$€£]?\s*(-?\d{1,3}(?:,\d{3})+(?:\.\d+)?|-?\d+(?:\.\d+)?)\s*(?:[$€£%°]|°?[A-Za-z]{1,12})?")


SHOWN = 80
"""Characters of an answer that the evidence shows."""
NO_ANSWER = Outcome(solved=0.0, evidence="no answer")
"""What an attempt without an answer comes to, at a task that has a check."""


def outcome_of(check: AnswerCheck | None, answer: str | None) -> Outcome:
    """Judge `answer`. An absent answer is never right. Without an exact check nothing is known, with or without one."""
    if check is None or check.kind == "judge":
        return Outcome(evidence="only a judge can tell")
    if answer is None:
        return NO_ANSWER
    solved = 1.0 if is_correct(check, answer) else 0.0
    return Outcome(solved=solved, evidence=f"expected {_shown(check.expected)}, answered {_shown(answer)}")


def _shown(value: Any) -> str:
    text = printable(" ".join(value.split()) if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def is_correct(check: AnswerCheck, answer: str) -> bool:
    """Whether `answer` is what an exact check (text, number or set) expects."""
    if len(answer) > MAX_ANSWER:
        return False
    if check.kind == "number":
        found = _NUMBER.fullmatch(_plain(answer))
        return (
            found is not None
            and abs(float(found[1].replace(",", "")) - float(check.expected)) <= check.tolerance + 1e-9
        )
    if check.kind == "set":
        given = _items(answer)
        return len(given) == len(check.expected) and set(given) == {_plain(item) for item in check.expected}
    return _plain(answer) == _plain(str(check.expected))


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

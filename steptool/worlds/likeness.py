"""How alike the arguments of two calls are. Pure.

equal as written      {"id": "A 1"}  and  {"id": "A 1"}
equal in one spelling {"id": " a  1", "page": 1.0, "q": ""}  and  {"id": "A 1", "page": "1"}
near                  texts that have most of their letters in common; numbers, and long texts, are equal or not
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import Any

MOST_LETTERS = 2_000
"""Of a text that is compared letter by letter, which takes up to the square of their number."""
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d{1,15})?")


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def one_spelling(value: Any) -> Any:
    """Equal where case, spaces, empty arguments, or the way of writing a number differ."""
    if isinstance(value, dict):
        return {name: one_spelling(each) for name, each in value.items() if each not in (None, "", [], {})}
    if isinstance(value, list):
        return [one_spelling(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        text = " ".join(value.casefold().split())
        return one_spelling(float(text)) if _NUMBER.fullmatch(text) else text
    return value


def likeness(mine: Mapping[str, Any], theirs: Mapping[str, Any], least: float = 0.0) -> float:
    """Of two sets of arguments in one spelling, from 0 to 1: that of the two values that are least alike. 0 where the
    names differ; where it is less than `least`, any number below that."""
    if mine.keys() != theirs.keys():
        return 0.0
    lowest = 1.0
    for name in mine:
        lowest = min(lowest, _of_values(mine[name], theirs[name], least))
        if lowest < least:
            break
    return lowest


def _of_values(mine: Any, theirs: Any, least: float) -> float:
    if isinstance(mine, str) and isinstance(theirs, str) and max(len(mine), len(theirs)) <= MOST_LETTERS:
        matcher = SequenceMatcher(None, mine, theirs, autojunk=False)
        at_most = min(matcher.real_quick_ratio(), matcher.quick_ratio())  # which take less time than the ratio
        return matcher.ratio() if at_most >= least else at_most
    return 1.0 if mine == theirs else 0.0

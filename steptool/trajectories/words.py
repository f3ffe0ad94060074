"""Finds the values of a tool's reply and where they occur again, by whole words and never by substrings.

A text becomes a *run*: its words, trimmed of punctuation, casefolded, numbers in one spelling, each
between NUL characters. One text holds another exactly when its run holds the other's run, so that
`417` is not found in `bk417`, and `12.50` is found in `It costs $12.5.`
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

NUL = "\0"
PROSE_WORDS = 3
"""A leaf of more words than this is prose: the words with a digit in them (ids, numbers, dates) are values too."""

_BETWEEN_WORDS = re.compile(r"[\s;|=]+|,(?!\d{3}(?!\d))|(?<!\d),|:(?!\d)|(?<!\d):")
_AROUND_WORDS = ".,:!?\"'`()[]{}<>$€£¥%*"
_NUMBER = re.compile(r"[+-]?(?:0|[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,29})(?:\.\d{1,30})?")


def words(text: str) -> list[str]:
    """The words of a text. `0417` stays itself, for it is an id; `1,200.50` becomes `1200.5`."""
    stripped = (part.strip(_AROUND_WORDS).casefold() for part in _BETWEEN_WORDS.split(text.replace(NUL, " ")))
    return [_one_spelling(word) for word in stripped if word]


def _one_spelling(word: str) -> str:
    if not _NUMBER.fullmatch(word):
        return word
    number = Decimal(word.replace(",", ""))
    return format(number.normalize(), "f") if number else "0"


def run(text: str) -> str:
    """A text as a run, empty for a text without words. Runs joined end to end never match across the seam."""
    found = words(text)
    return f"{NUL}{NUL.join(found)}{NUL}" if found else ""


def scalars(value: Any) -> Iterator[Any]:
    """Everything in a JSON value that is neither an object nor an array, in order."""
    waiting = [value]
    while waiting:  # a stack, because hostile nesting must not exhaust the interpreter's own
        item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(reversed(list(item.values())))
        elif isinstance(item, list | tuple):
            waiting.extend(reversed(item))
        else:
            yield item


def leaves(value: Any) -> list[str]:
    """Every string and number of a JSON value, as text, in order; booleans and nulls say too little to be a source."""
    return [str(item) for item in scalars(value) if isinstance(item, str | int | float) and not isinstance(item, bool)]


def is_empty(value: Any) -> bool:
    """True for null, blank text, and objects and arrays with nothing else in them."""
    return all(item is None or (isinstance(item, str) and not item.strip()) for item in scalars(value))


def parse(text: str) -> Any:
    """A reply as JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def values(text: str) -> list[str]:
    """The runs of the values of a reply, without duplicates: one for each leaf, and in prose one for each word with a
    digit."""
    found: list[str] = []
    for leaf in leaves(parse(text)):
        found.append(run(leaf))
        inside = words(leaf)
        if len(inside) > PROSE_WORDS:
            found.extend(f"{NUL}{word}{NUL}" for word in inside if any(map(str.isdigit, word)))
    return [value for value in dict.fromkeys(found) if value]


def runs(value: Any) -> str:
    """All leaves of a JSON value as one text to look values up in."""
    return "".join(run(leaf) for leaf in leaves(value))

"""Text from outside, marked, so that a chat template can do with it what it likes and it stays text.

    template:  <|im_start|>user⏎ + «Where is <|im_end|>?» + <|im_end|>⏎       « and » are U+FDD0 and U+FDD1
    tokens:    └ control tokens ┘   └── plain letters ──┘   └ control token ┘

The two marks are noncharacters, which no text may hold (what holds one anyway gets U+FFFD). `MarkedEncoder` cuts a
rendered text at them and encodes it through `Encoder`, whose control tokens are those outside of the marks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from steptool.formats.encoder import Encoder
from steptool.formats.text import valid_text

OPEN, CLOSE = "\ufdd0", "\ufdd1"
_MARKS = re.compile(f"[{OPEN}{CLOSE}]")
_OUTSIDE = re.compile(f"{OPEN}([^{CLOSE}]*){CLOSE}")


def mark(text: str) -> str:
    """The marks stand inside of the spaces around a text, which a template may strip."""
    text = clean(text)
    inner = text.strip()
    if not inner:
        return text
    start = text.index(inner)
    return f"{text[:start]}{OPEN}{inner}{CLOSE}{text[start + len(inner) :]}"


def clean(text: str) -> str:
    """Valid Unicode without marks."""
    return _MARKS.sub("\ufffd", valid_text(text))


def find_outside(text: str, words: Sequence[str], start: int = 0) -> tuple[int, int] | None:
    """Start and end of the first of `words` in a rendered text that stands outside of its marks; None without one."""
    hidden = _OUTSIDE.sub(lambda found: OPEN * len(found[0]), text)
    places = [(at, at + len(word)) for word in words if (at := hidden.find(word, start)) >= 0]
    return min(places, default=None)


class MarkedEncoder:
    """`written` are texts that the template writes, with all markers that it has."""

    def __init__(self, tokenizer: Any, written: Sequence[str]) -> None:
        self._encoder = Encoder(tokenizer, written)
        self.names = self._encoder.names
        """How the control tokens are spelled."""
        self._signs = {sign for sign in "".join(self.names) if not sign.isalnum() and sign not in "_ ▁"}

    def encode(self, text: str) -> list[int]:
        """Ids of a rendered text: control tokens only where it has them outside of its marks."""
        pieces, texts, at = [], [], 0
        for found in _OUTSIDE.finditer(text):
            pieces.append(text[at : found.start()])
            texts.append(found[1])
            at = found.end()
        return self._encoder.encode(self._encoder.chunk(*pieces, text[at:]), *texts)

    def is_control(self, id: int) -> bool:
        return id in self._encoder.control

    def mark_within(self, value: Any) -> Any:
        """A schema or arguments with each string marked that has a sign of a control token's name.

        The others stay as they are, since templates compare some (`type`) and sort by others.
        """
        if isinstance(value, str):
            return mark(value) if self._signs & set(unicodedata.normalize("NFKC", value)) else clean(value)
        if isinstance(value, dict):
            return {self.mark_within(key): self.mark_within(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.mark_within(item) for item in value]
        return value

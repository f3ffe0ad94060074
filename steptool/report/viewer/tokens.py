"""The token stream of an attempt as text, by the tokenizer of the project's base model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from steptool.config.places import BASE
from steptool.core.errors import reason
from steptool.core.types import Step

FILE = BASE / "tokenizer.json"
MAX_CONTEXT, MAX_SAMPLED = 20_000, 5_000
"""Characters of one context, and sampled tokens of one step, that are shown."""


class Run(NamedTuple):
    """Neighbouring tokens of a context, as text."""

    text: str
    is_control: bool


class Sampled(NamedTuple):
    id: int
    text: str
    """Empty where the token is the beginning of a character that the next ones end; the id where nothing decodes it."""
    is_control: bool
    logprob: float


class StepTokens(NamedTuple):
    context: list[Run]
    context_size: int
    """Its tokens."""
    left_out: int
    """Characters at its end that are not shown."""
    sampled: list[Sampled]
    """The first of them, where there are more than are shown."""


class Words:
    """Reads the tokenizer when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self._file = root / FILE
        self._problem = ""

    @cached_property
    def _tokenizer(self) -> Tokenizer | None:
        if not self._file.is_file():
            self._problem = f"there is no {FILE}"
            return None
        try:
            return Tokenizer.from_file(str(self._file))
        except Exception as fault:  # noqa: BLE001 - the library raises nothing narrower
            self._problem = f"{FILE} cannot be read: {reason(fault)}"
            return None

    @cached_property
    def _control(self) -> frozenset[int]:
        added = self._tokenizer.get_added_tokens_decoder() if self._tokenizer else {}
        return frozenset(token for token, about in added.items() if about.special)

    @property
    def missing(self) -> str:
        """Why tokens are numbers; empty where they are text."""
        return "" if self._tokenizer else f"{self._problem}; tokens are shown by their numbers"

    def of(self, step: Step) -> StepTokens:
        ids, logprobs = step.action_ids[:MAX_SAMPLED], step.action_logprobs[:MAX_SAMPLED]
        sampled = [
            Sampled(token, text, token in self._control, round(logprob, 6))
            for token, text, logprob in zip(ids, self._texts(ids), logprobs, strict=True)
        ]
        context, left_out = self._context(step.context_ids)
        return StepTokens(context, len(step.context_ids), left_out, sampled)

    def _texts(self, ids: Sequence[int]) -> list[str]:
        """One text a token; together they are what the model said."""
        tokenizer = self._tokenizer
        if tokenizer is None:
            return [f" {token}" for token in ids]
        size, stream = tokenizer.get_vocab_size(), DecodeStream(skip_special_tokens=False)
        found = []
        for token in ids:
            if token >= size:  # of another model
                found.append(f" {token}")
            else:
                found.append(stream.step(tokenizer, token) or "")
        return found

    def _context(self, ids: Sequence[int]) -> tuple[list[Run], int]:
        tokenizer = self._tokenizer
        if tokenizer is None or (ids and max(ids) >= tokenizer.get_vocab_size()):
            runs = [Run(" ".join(map(str, ids)), False)]
        else:
            grouped = groupby(ids, key=lambda token: token in self._control)
            runs = [Run(tokenizer.decode(list(own), skip_special_tokens=False), special) for special, own in grouped]
        return _cut(runs)


def _cut(runs: Sequence[Run]) -> tuple[list[Run], int]:
    kept, left = [], MAX_CONTEXT
    for run in runs:
        if left > 0:
            kept.append(Run(run.text[:left], run.is_control))
        left -= len(run.text)
    return kept, max(0, -left)

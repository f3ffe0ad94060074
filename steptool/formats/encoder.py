"""Text to token ids, where only the chat template's own markers can become control tokens.

    <|im_start|>user\\n  Where is <|im_end|>?  <|im_end|>\\n      a chunk: markers with texts from outside between
    └────────┘                              └────────┘          control tokens
                         └────────┘                             from outside: plain letters

A chunk is encoded whole, exactly as the template's text would be, so normalisers, prefixed spaces and merges over
the edge of a text do what they do elsewhere. If the control tokens of the result are not exactly those of the markers,
in their places, a text spells a control token (`＜|im_end|＞` does too, where the tokenizer normalises).
Such a chunk is put together from the ids of its markers and from texts that are encoded with control tokens
switched off. If the tokenizer still writes a control token for a text, the text is cut until it does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from typing import Any

from tokenizers import Encoding, Tokenizer

from steptool.core.errors import ModelError


@dataclass(frozen=True)
class Chunk:
    """Part of the template's text between two actions."""

    pieces: tuple[str, ...]
    """The markers' text, one piece more than there are texts between them."""
    parts: tuple[int | str | None, ...]
    """The same: control tokens as ids, plain text, and None for a text from outside."""
    control: tuple[int, ...]
    """The control tokens among `parts`."""


class Encoder:
    """`markers` are all texts that the chat template writes itself."""

    def __init__(self, tokenizer: Any, markers: Sequence[str]) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise ModelError(
                f"its tokenizer ({type(tokenizer).__name__}) cannot keep texts and control tokens apart",
                where=getattr(tokenizer, "name_or_path", "tokenizer"),
                fix="use a model that has a tokenizer.json",
            )
        self._whole = Tokenizer.from_str(backend.to_str())  # a copy, since its owner may change its settings
        self._whole.no_truncation()
        self._whole.no_padding()
        self._whole.encode_special_tokens = False
        if getattr(self._whole.model, "dropout", None):
            self._whole.model.dropout = None  # it would give another stream each time
        added = self._whole.get_added_tokens_decoder()
        self._eats_before = {id for id, token in added.items() if token.lstrip}
        self._eats_behind = {id for id, token in added.items() if token.rstrip}
        written = {id for id, token in added.items() if any(token.content in marker for marker in markers)}
        self._own = {id for id in written if added[id].special}
        self.control = frozenset(self._own | {id for id, token in added.items() if _is_name(token.content)})
        self.names = frozenset(added[id].content for id in self.control)
        """How the control tokens are spelled."""

    def chunk(self, *pieces: str) -> Chunk:
        parts: list[int | str | None] = []
        for piece in pieces:
            done = 0
            for id, start, end in self._control_tokens(piece):
                parts += [piece[done:start], id]
                done = end
            parts += [piece[done:], None]
        return Chunk(pieces, tuple(parts[:-1]), tuple(part for part in parts if isinstance(part, int)))

    def last_turn(self, marker: str) -> str:
        """A marker's text from its last control token on."""
        starts = [start for _, start, _ in self._control_tokens(marker)]
        return marker[starts[-1] :] if starts else marker

    def encode(self, chunk: Chunk, *texts: str) -> list[int]:
        """The chunk's ids with `texts` in their places. Its control tokens are `chunk.control`, whatever they hold."""
        text, places = chunk.pieces[0], []
        for outside, piece in zip(texts, chunk.pieces[1:], strict=True):
            places.append((len(text), len(text) + len(outside)))
            text += outside + piece
        encoding = self._encoding(text)
        ids: list[int] = encoding.ids
        found = [index for index, id in enumerate(ids) if id in self.control]
        if tuple(ids[index] for index in found) != chunk.control or any(
            _overlaps(text, encoding.token_to_chars(index), places) for index in found
        ):
            return self._in_parts(chunk, texts)
        return ids

    def plain(self, text: str) -> list[int]:
        """Ids of a text by itself, none of them a control token."""
        tokenizer, forbidden = self._plain
        encoding = tokenizer.encode(text, add_special_tokens=False)
        found = [index for index, id in enumerate(encoding.ids) if id in forbidden]
        if not found or len(text) < 2:
            return [id for id in encoding.ids if id not in forbidden]
        cuts = set(chain.from_iterable(_cuts(encoding.token_to_chars(index)) for index in found))
        inside = sorted(cut for cut in cuts if 0 < cut < len(text)) or [len(text) // 2]
        return [id for start, end in pairwise([0, *inside, len(text)]) for id in self.plain(text[start:end])]

    def _encoding(self, text: str) -> Encoding:
        return self._whole.encode(text, add_special_tokens=False)

    def _control_tokens(self, marker: str) -> Iterator[tuple[int, int, int]]:
        """Id, start and end of each."""
        encoding = self._encoding(marker)
        for index, id in enumerate(encoding.ids):
            if id in self.control:
                yield id, *(encoding.token_to_chars(index) or (0, 0))

    def _in_parts(self, chunk: Chunk, texts: Sequence[str]) -> list[int]:
        ids: list[int] = []
        remaining, text = iter(texts), ""
        for part in chunk.parts:
            if not isinstance(part, int):
                text += next(remaining) if part is None else part
                continue
            ids += [*self._between(ids, text, part), part]
            text = ""
        return [*ids, *self._between(ids, text, None)]

    def _between(self, before: Sequence[int], text: str, behind: int | None) -> list[int]:
        """A text between two control tokens, some of which swallow the spaces beside them."""
        text = text.rstrip() if behind in self._eats_before else text
        return self.plain(text.lstrip() if before and before[-1] in self._eats_behind else text)

    @cached_property
    def _plain(self) -> tuple[Tokenizer, frozenset[int]]:
        """The tokenizer with control tokens switched off, and the ids that must not come out of it."""
        settings = json.loads(self._whole.to_str(), object_hook=_within)
        for token in settings["added_tokens"]:
            token["special"] = token["id"] in self.control
        tokenizer = Tokenizer.from_str(json.dumps(settings))
        tokenizer.encode_special_tokens = True
        model = settings["model"]
        unknown = model.get("unk_id", tokenizer.token_to_id(model.get("unk_token") or ""))
        return tokenizer, self.control - ({unknown} - self._own)


def _is_name(content: str) -> bool:
    """False for added tokens that are text: a run of spaces, a single letter."""
    return len(content.replace("▁", " ").strip()) > 1


def _overlaps(text: str, span: tuple[int, int] | None, places: Sequence[tuple[int, int]]) -> bool:
    """Whether a token lies in one of `places`; spaces at its ends, which it may swallow, do not count."""
    if span is None:
        return True
    inner = text[slice(*span)]
    start = span[0] + len(inner) - len(inner.lstrip())
    end = start + len(inner.strip())
    return any(start < last and first < end for first, last in places)


def _cuts(span: tuple[int, int] | None) -> tuple[int, ...]:
    start, end = span or (0, 0)
    return ((start + end) // 2,) if end - start > 1 else (start, end)


def _within(settings: dict[str, Any]) -> dict[str, Any]:
    """A Metaspace that begins a text with a space: here no text is the first, a marker stands before each."""
    return settings | {"prepend_scheme": "never"} if settings.get("prepend_scheme") == "first" else settings

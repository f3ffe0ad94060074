"""What a model's chat template writes around the texts of a conversation, found by rendering it with sentinels.

    <|im_start|>system\\n SENTINEL <|im_end|>\\n<|im_start|>user\\n SENTINEL <|im_end|>\\n<|im_start|>assistant\\n …
    └─ before_system ──┘          └──────── before_query ────────┘          └──── before_action ─────────┘

A template comes with the model, so others wrote it. It runs in a child process with limits, at a fixed date.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise, product
from typing import Any, Literal

from steptool.core.errors import ModelError
from steptool.formats.bounded import bounded

MAX_CHARACTERS = 100_000
"""That a template may write for a conversation of four short messages."""
TODAY = datetime(2024, 7, 26)
"""The date in every prompt, the one that Llama's template falls back on: a prompt must not change overnight."""

_SENTINELS = {role: f"SENTINEL{role.upper()}LENITNES" for role in ("system", "query", "action", "observation")}
_ANY = re.compile("|".join(_SENTINELS.values()))
_LEFT, _RIGHT = "\n ", " \n"
"""Put around sentinels in order to see whether the template strips its texts."""


@dataclass(frozen=True)
class Slot:
    """The place of a text: which of its ends the template strips."""

    left: bool = False
    right: bool = False

    def trim(self, text: str) -> str:
        text = text.lstrip() if self.left else text
        return text.rstrip() if self.right else text


@dataclass(frozen=True)
class ChatTemplate:
    markers: tuple[str, ...]
    """What stands before the system's text, the query, the action and the observation, and after the observation.
    The fourth begins with the end of the action's turn."""
    system: Slot
    query: Slot
    observation: Slot


def read_template(tokenizer: Any) -> ChatTemplate:
    """Raises ModelError where the template is missing, refuses, does not end, or does not keep a prefix."""
    try:
        rendered = bounded(lambda: [_render(tokenizer, role) for role in ("tool", "user")])
    except TimeoutError as error:
        fix = "take the chat template that the model was published with"
        raise unfit(tokenizer, f"its chat template does not come to an end: {error}", fix) from None
    except ValueError:  # it took more memory than it may, or more of the stack than there is
        rendered = []
    for prompt, whole, padded in rendered:
        if whole and prompt and _is_fit(prompt, whole):
            markers = _ANY.split(whole)
            system, query, _, observation = _slots(markers, _ANY.split(padded or ""))
            return ChatTemplate(tuple(markers), system, query, observation)
    raise unfit(
        tokenizer,
        "its chat template cannot hold system, user, assistant and tool messages in order",
        "use an instruction-tuned model whose tokenizer has a chat_template",
    )


def unfit(tokenizer: Any, found: str, fix: str) -> ModelError:
    return ModelError(found, where=getattr(tokenizer, "name_or_path", "tokenizer"), fix=fix)


def _render(tokenizer: Any, role: Literal["tool", "user"]) -> list[str | None]:
    """The prompt, all four messages, and these with spaces around the texts; `role` is the fourth message's."""

    def messages(left: str = "", right: str = "") -> list[dict[str, str]]:
        roles = ("system", "user", "assistant", role)
        texts = _SENTINELS.values()
        return [{"role": name, "content": left + text + right} for name, text in zip(roles, texts, strict=True)]

    conversations = (messages()[:2], messages(), messages(_LEFT, _RIGHT))
    return [_apply(tokenizer, conversation) for conversation in conversations]


def _apply(tokenizer: Any, messages: list[dict[str, str]]) -> str | None:
    """None where the template refuses the messages or writes more than any prompt can hold."""
    random.seed(0)  # a template has `lipsum()` and `| random`
    try:
        text = str(
            tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=True,
                date_string=TODAY.strftime("%d %b %Y"),
                strftime_now=TODAY.strftime,
            )
        )
        text.encode()  # refuses half of a surrogate pair, which no tokenizer takes
    except Exception:  # noqa: BLE001 - templates refuse by raising whatever they like
        return None
    return text if len(text) <= MAX_CHARACTERS else None


def _is_fit(prompt: str, whole: str) -> bool:
    """Whether all texts stand there once and unaltered, and the prompt is the beginning of the whole."""
    in_order = _ANY.findall(whole) == list(_SENTINELS.values())
    quoted = f'"{_SENTINELS["observation"]}"' in whole  # Llama's tool role writes the text as JSON
    return in_order and not quoted and whole.startswith(prompt + _SENTINELS["action"])


def _slots(pieces: list[str], padded: list[str]) -> list[Slot]:
    """Where spaces around a text are missing in `padded`, the template stripped them."""
    if len(padded) != len(pieces):
        return [Slot()] * (len(pieces) - 1)
    kept = [_kept(piece, with_spaces) for piece, with_spaces in zip(pieces, padded, strict=True)]
    return [Slot(left=not before[1], right=not after[0]) for before, after in pairwise(kept)]


def _kept(piece: str, padded: str) -> tuple[bool, bool]:
    """Whether the spaces before and after `piece` are still in `padded`."""
    for before, after in product((_RIGHT, ""), (_LEFT, "")):
        if padded == before + piece + after:
            return bool(before), bool(after)
    return True, True  # the template does something else with them, which no text of ours needs

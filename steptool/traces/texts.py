"""Every text of a conversation, also within the JSON that it holds, put through a function."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from steptool.core.messages import Message
from steptool.core.storage import without_duplicates
from steptool.core.types import AnswerCheck, Tool
from steptool.traces.conversation import Conversation

MOST_DEPTH = 40
"""Levels of JSON, also of JSON in the strings of JSON; what is deeper is taken as text."""

OnText = Callable[[str], str]
OnField = Callable[[str, Any], Any]
OnNumber = Callable[[float], float]


class NotReplaced(Exception):
    """Raised by an `OnField` for a field that it leaves to be walked through."""


def no_field(name: str, value: Any) -> Any:
    raise NotReplaced


def same_number(value: float) -> float:
    return value


class Texts:
    """`on_text` gets every text that is no JSON, and every string and name within JSON. `on_field` may replace the
    value of a field of JSON, or raise NotReplaced. `on_number` gets every number of JSON."""

    def __init__(self, on_text: OnText, on_field: OnField = no_field, on_number: OnNumber = same_number) -> None:
        self._on_text, self._on_field, self._on_number = on_text, on_field, on_number

    def text(self, text: str, depth: int = 0) -> str:
        """JSON is written anew only where something in it changed. With a name given twice it is no JSON: what the
        first one holds would be kept."""
        if text.lstrip()[:1] not in ("{", "[") or depth > MOST_DEPTH:
            return self._on_text(text)
        try:
            value = json.loads(text, object_pairs_hook=without_duplicates)
            changed = self._value(value, depth)
        except (ValueError, RecursionError):
            return self._on_text(text)
        return text if changed == value else json.dumps(changed, ensure_ascii="\\u" in text)

    def conversation(self, of: Conversation) -> Conversation:
        """Ids of calls and names of tools stay: they are no texts."""
        return of.model_copy(
            update={
                "where": self._on_text(of.where),
                "messages": tuple(map(self._message, of.messages)),
                "tools": tuple(map(self._tool, of.tools)),
                "model": self._on_text(of.model),
                "group": self._on_text(of.group),
                "answer": None if of.answer is None else self.text(of.answer),
                "evidence": self._on_text(of.evidence),
                "check": of.check and self._check(of.check),
            }
        )

    def _message(self, of: Message) -> Message:
        calls = tuple(call.model_copy(update={"arguments": self.text(call.arguments)}) for call in of.calls)
        return of.model_copy(update={"text": self.text(of.text), "thought": self.text(of.thought), "calls": calls})

    def _tool(self, of: Tool) -> Tool:
        """The names in its parameters are no fields of data."""
        schema = Texts(self._on_text)._value(of.parameters, 0)
        return of.model_copy(update={"description": self._on_text(of.description), "parameters": schema})

    def _check(self, of: AnswerCheck) -> AnswerCheck:
        return of.model_copy(update={"expected": self._value(of.expected, 0)})

    def _value(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return {self._on_text(name): self._of_field(name, item, depth + 1) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._value(item, depth + 1) for item in value]
        if isinstance(value, str):
            return self.text(value, depth + 1)
        return self._on_number(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    def _of_field(self, name: str, value: Any, depth: int) -> Any:
        try:
            return self._on_field(name, value)
        except NotReplaced:
            return self._value(value, depth)

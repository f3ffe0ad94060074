"""ToolBench's training files: conversations in its text of Thought, Action and Action Input."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from steptool.core.messages import Message, MessageCall
from steptool.core.types import Tool
from steptool.formats.react import React
from steptool.traces.conversation import Conversation, Unusable
from steptool.traces.labels import Labels
from steptool.traces.records import Record
from steptool.traces.toolbench_answers import AROUND_QUERY, MOST_LITERAL, functions

_APIS = re.compile(r"you have access to the following APIs: (\[.*\])\s*\Z", re.DOTALL)
_ACTION = re.compile(r"^Action:[ \t]*(\S*)[ \t]*\r?\nAction Input:\s*(.*)", re.DOTALL | re.MULTILINE)


def is_text(record: Mapping[str, Any]) -> bool:
    said = [text for role, text in _turns(record) if role == "assistant"]
    return bool(said) and all("Action:" in text and "Action Input:" in text for text in said)


def _turns(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Role and text of each message of a training file."""
    written = record.get("conversations") or record.get("messages")
    if not isinstance(written, list) or not all(isinstance(item, Mapping) for item in written):
        return []
    pairs = [(item.get("from", item.get("role")), item.get("value", item.get("content"))) for item in written]
    return [(str(role), str(text)) for role, text in pairs if isinstance(text, str)]


def of_text(record: Record, labels: Labels) -> Conversation:
    turns = _turns(record.value)
    prompt = next((text for role, text in turns if role == "system"), "")
    return Conversation(
        where=record.where,
        messages=tuple(_message_of_text(role, text) for role, text in turns),
        tools=_apis(prompt),
        **labels._asdict(),
    )


def _message_of_text(role: str, text: str) -> Message:
    if role in ("function", "tool"):
        return Message(role="tool", text=text)
    if role == "assistant":
        return _message_of_action(text)
    if role not in ("system", "user"):
        raise Unusable("a message has no role of ToolBench's", is_broken=True)
    whole = AROUND_QUERY.fullmatch(text)
    return Message(role="user" if role == "user" else "system", text=whole[1] if whole and role == "user" else text)


def _message_of_action(text: str) -> Message:
    """A call as it was written, also where it cannot be read."""
    action = React.read(text)
    if action.calls:
        call = action.calls[0]
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        return Message(role="assistant", text=action.thought, calls=(MessageCall(name=call.name, arguments=arguments),))
    found = _ACTION.search(text)
    name, arguments = (found[1], found[2]) if found else ("", text.strip())
    thought = text[: found.start()].strip().removeprefix("Thought:").strip() if found else ""
    return Message(role="assistant", text=thought, calls=(MessageCall(name=name, arguments=arguments),))


def _apis(prompt: str) -> tuple[Tool, ...]:
    """The functions that a prompt lists, as Python writes them; none where it does not."""
    found = _APIS.search(prompt)
    if not found or len(found[1]) > MOST_LITERAL:
        return ()
    try:
        return functions(ast.literal_eval(found[1]))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, Unusable):
        return ()

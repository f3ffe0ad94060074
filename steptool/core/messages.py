"""A conversation as clients of language models write it: the gateway reads it, traces are imported from it.

    system     how to behave
    user       what is asked
    assistant  text, or calls of tools, or both
    tool       the reply to one of these calls

It is OpenAI's form with what is spelled in several ways there read into one: content parts joined, arguments as JSON
text. Needs only pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from steptool.core.types import Frozen, Task, Tool

GAVE_UP = "I cannot answer this."
"""What a policy that gives up says where a message has to say it."""


class MessageCall(Frozen):
    """One call of a tool within an assistant's message."""

    id: str = ""
    """What the reply names it by; empty where the source has none: replies are then in the order of the calls."""
    name: str
    arguments: str
    """JSON text as the model wrote it, which may be broken."""


class Message(Frozen):
    role: Literal["system", "user", "assistant", "tool"]
    text: str = ""
    calls: tuple[MessageCall, ...] = ()
    """Of an assistant alone."""
    thought: str = ""
    """Reasoning of an assistant that the source keeps apart from its text."""
    call_id: str = ""
    """Of a tool alone: the id of the call that it replies to."""
    name: str = ""
    """Of a tool alone: its name, where the source gives it."""
    error: str | None = None
    """Of a tool alone: the kind of failure where the source marks it as one; None where it does not say."""


def tool_of(function: Mapping[str, Any]) -> Tool:
    """A tool from the `function` of OpenAI's `tools`. Raises pydantic's ValidationError or KeyError."""
    return Tool(
        name=function["name"],
        description=function.get("description") or "",
        parameters=function.get("parameters") or {"type": "object", "properties": {}},
    )


def task_messages(task: Task) -> list[Message]:
    """What a task begins with: its system message, where it has one, and its query."""
    system = [Message(role="system", text=task.system)] if task.system else []
    return [*system, Message(role="user", text=task.query)]


def openai_call(call: MessageCall) -> dict[str, Any]:
    """A call in OpenAI's form, within an assistant's message."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def openai_message(message: Message) -> dict[str, Any]:
    """A message in OpenAI's form, its arguments as text."""
    written: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.calls:
        written["tool_calls"] = [openai_call(call) for call in message.calls]
    if message.role == "tool":
        written["tool_call_id"] = message.call_id
    return written

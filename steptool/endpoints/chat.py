"""A conversation with an endpoint, in OpenAI's form, and the actions in it. Pure.

task, system              [system] user
Reply                     its assistant message, and the Action in it: calls, a message, or unreadable
what came back            one tool message a call; a user's message; for no call at all a user's message with a hint
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from steptool.core.messages import Message, MessageCall, openai_message
from steptool.core.types import FINISH, Action, Frozen, Observation, Task, ToolCall
from steptool.formats.arguments import read_arguments
from steptool.formats.names import OPENAI, Names
from steptool.formats.text import valid_text
from steptool.formats.tool_text import openai_tools

Chat = list[dict[str, Any]]
"""Messages of OpenAI's."""


class Reply(Frozen):
    """One answer of an endpoint."""

    text: str = ""
    thought: str = ""
    """Reasoning that the endpoint keeps apart from its text."""
    calls: tuple[MessageCall, ...] = ()
    finish: str = ""
    """Why it ended: stop, tool_calls, length, content_filter."""
    prompt_tokens: int | None = None
    """None where the endpoint does not say."""
    tokens: int | None = None


TOO_LONG = "the conversation does not fit the model any more"
"""Why a reply ended that the endpoint refused to give, and what cannot be read of it."""


class Nonsense(Exception):
    """What came back is no chat completion. The message says why, in a few words."""


class TooLong(Exception):
    """The conversation does not fit the model any more."""


def read_reply(document: Any) -> Reply:
    """The reply in a chat completion. Raises Nonsense where it holds none."""
    choices = document.get("choices") if isinstance(document, Mapping) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(message, Mapping):
        raise Nonsense("it holds no choices[0].message")
    usage = document.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    return Reply(
        text=_text(message.get("content")) or _text(message.get("refusal")),
        thought=_text(message.get("reasoning_content")) or _text(message.get("reasoning")),
        calls=tuple(_calls(message.get("tool_calls"))),
        finish=_text(choice.get("finish_reason")) if isinstance(choice, Mapping) else "",
        prompt_tokens=_count(usage.get("prompt_tokens")),
        tokens=_count(usage.get("completion_tokens")),
    )


def _calls(found: Any) -> list[MessageCall]:
    calls = []
    for number, call in enumerate(found if isinstance(found, list) else []):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise Nonsense(f"its tool call {number} has no function with a name")
        arguments = function.get("arguments")
        text = valid_text(arguments) if isinstance(arguments, str) else ""
        calls.append(
            MessageCall(id=_text(call.get("id")) or f"call_{number}", name=valid_text(function["name"]), arguments=text)
        )
    return calls


def _text(value: Any) -> str:
    """A text, or the texts in a list of content parts."""
    if isinstance(value, list):
        return "".join(_text(part.get("text")) for part in value if isinstance(part, Mapping))
    return valid_text(value) if isinstance(value, str) else ""


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def opening(task: Task, system: str) -> Chat:
    """What a conversation about a task begins with."""
    told = "\n\n".join(filter(None, [system, task.system]))
    first = [Message(role="system", text=told)] if told else []
    return [openai_message(each) for each in (*first, Message(role="user", text=task.query))]


def offered(task: Task) -> list[dict[str, Any]]:
    """Its tools, by names that OpenAI's API takes."""
    written = Names.of(task.tools, OPENAI).written
    return openai_tools([tool.model_copy(update={"name": written[tool.name]}) for tool in task.tools])


def action_of(reply: Reply, task: Task) -> Action:
    """What the reply does, with the world's names. Never raises: what cannot be read is an action with `unreadable`."""
    thought = "\n".join(part for part in (reply.thought, reply.text if reply.calls else "") if part)
    if reply.finish == TOO_LONG:
        return Action(unreadable=TOO_LONG)
    if reply.calls:
        calls = [(call.name, read_arguments(call.arguments.strip() or "{}")) for call in reply.calls]
        if problem := next((problem for call in calls if (problem := _problem(*call))), None):
            written = (f"{call.name} {call.arguments}" for call in reply.calls)
            return Action(thought="\n".join(filter(None, (thought, *written))), unreadable=problem + _cut(reply))
        made = tuple(ToolCall(name=name, arguments=found) for name, found in calls if isinstance(found, dict))
        return Names.of(task.tools, OPENAI).read(Action(thought=thought, calls=made))
    if reply.finish == "length":
        return Action(thought=thought or reply.text, unreadable=f"no end of the answer{_cut(reply)}")
    if not reply.text.strip():
        return Action(thought=thought, unreadable="neither a call nor a text")
    return Action(thought=thought, message=reply.text)


def _problem(name: str, arguments: dict[str, Any] | str) -> str | None:
    if name == FINISH:
        return f"there is no tool {FINISH}; to end, answer without a call"
    return f"{name[:80]}: {arguments}" if isinstance(arguments, str) else None


def _cut(reply: Reply) -> str:
    known = "" if reply.tokens is None else f" after {reply.tokens} tokens"
    return f" (cut{known})" if reply.finish == "length" else ""


def hint(problem: str) -> str:
    """What it is told after an answer that could not be read."""
    return f"That could not be read: {problem}. Call a tool with a JSON object of arguments, or answer."


def following(reply: Reply, observations: Sequence[Observation], user: str | None) -> Chat:
    """The messages behind those that were answered with `reply`: this one, and what came back."""
    if not reply.calls:
        back = user if user is not None else observations[0].text
        # A message without any text is refused by some servers.
        said = [Message(role="assistant", text=reply.text)] if reply.text.strip() else []
        return [openai_message(each) for each in (*said, Message(role="user", text=back))]
    calls = tuple(call.model_copy(update={"arguments": _sent_back(call.arguments)}) for call in reply.calls)
    texts = [seen.text for seen in observations]
    texts = texts * len(calls) if len(texts) == 1 else texts  # one hint for calls that could not be read
    replies = [Message(role="tool", call_id=call.id, text=text) for call, text in zip(calls, texts, strict=True)]
    return [openai_message(each) for each in (Message(role="assistant", text=reply.text, calls=calls), *replies)]


def _sent_back(arguments: str) -> str:
    """Servers refuse a history with arguments that are no JSON object, such as a model wrote them."""
    text = arguments.strip() or "{}"
    return text if isinstance(read_arguments(text), dict) else json.dumps({"unreadable": arguments})

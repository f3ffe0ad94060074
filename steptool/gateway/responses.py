"""The Responses API: a request's items read as messages, a reply written whole or as the events of a stream. Pure.

instructions                                   a system message before everything
message, or one without a type                 a message
function_call                                  a call of the assistant's message before it, or of a new one
function_call_output                           a tool's message
reasoning                                      nothing: the policy's own tokens are kept on this side
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from steptool.core.messages import Message, MessageCall
from steptool.gateway.base import ChatReply, ChatRequest, Refused
from steptool.gateway.body import (
    MOST_MESSAGES,
    MOST_TOOLS,
    Choice,
    Content,
    Function,
    Name,
    Part,
    Stamp,
    Tokens,
    offered,
    read_body,
    refuse_fields,
    text_of,
)

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "background": (False,),
    "conversation": (),
    "prompt": (),
    "top_logprobs": (0,),
}
"""Fields that promise something of the reply that a policy cannot give, and their values that promise nothing."""


class _MessageItem(Part):
    type: Literal["message"]
    role: Literal["system", "developer", "user", "assistant"]
    content: Content


class _CallItem(Part):
    type: Literal["function_call"]
    call_id: str
    name: Name
    arguments: str


class _OutputItem(Part):
    type: Literal["function_call_output"]
    call_id: str
    output: Content


class _ReasoningItem(Part):
    type: Literal["reasoning"]


def _typed(value: Any) -> Any:
    """The type may be left out of a message."""
    return {"type": "message", **value} if isinstance(value, dict) and "role" in value else value


_Item = Annotated[
    _MessageItem | _CallItem | _OutputItem | _ReasoningItem, Field(discriminator="type"), BeforeValidator(_typed)
]


def _items(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


class ResponsesBody(Part):
    input: Annotated[list[_Item], Field(max_length=MOST_MESSAGES), BeforeValidator(_items)] = Field(
        default_factory=list
    )
    instructions: str | None = None
    model: str = ""
    previous_response_id: str | None = None
    tools: Annotated[list[Function], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: Choice = None
    max_output_tokens: Tokens | None = None
    stream: bool | None = None
    text: Any = None
    background: Any = None
    conversation: Any = None
    prompt: Any = None
    top_logprobs: Any = None


def read_responses(
    raw: bytes, known: Mapping[str, tuple[Message, ...]]
) -> tuple[ChatRequest, ResponsesBody, tuple[Message, ...]]:
    """The request, and its messages without the instructions, which a later request does not take over.

    `known`: id of an earlier response → the messages up to its end. Raises Refused for what cannot be read or done.
    """
    body = read_body(raw, ResponsesBody)
    refuse_fields(body, UNSUPPORTED)
    _refuse_text_format(body.text)
    before: tuple[Message, ...] = ()
    if body.previous_response_id is not None:
        if body.previous_response_id not in known:
            raise Refused(
                "previous_response_id is none of this attempt's", code="not_found", param="previous_response_id"
            )
        before = known[body.previous_response_id]
    messages = (*before, *_messages(body.input))
    if not messages:
        raise Refused("input is empty", code="invalid_request", param="input")
    choice = body.tool_choice or "auto"
    system = (Message(role="system", text=body.instructions),) if body.instructions else ()
    request = ChatRequest(
        messages=(*system, *messages),
        tools=offered(body.tools or (), choice),
        tool_choice=choice,
        max_tokens=body.max_output_tokens,
        model=body.model,
    )
    return request, body, messages


def _refuse_text_format(text: Any) -> None:
    wanted = text.get("format") if isinstance(text, dict) else None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in (None, "text"):
        raise Refused(
            f"text.format {kind!r} is not supported by this server: nothing makes a policy keep to it; ask for text",
            code="unsupported_parameter",
            param="text.format",
        )


def _messages(items: Sequence[_MessageItem | _CallItem | _OutputItem | _ReasoningItem]) -> list[Message]:
    found: list[Message] = []
    for item in items:
        if isinstance(item, _MessageItem):
            found.append(Message(role="system" if item.role == "developer" else item.role, text=text_of(item.content)))
        elif isinstance(item, _OutputItem):
            found.append(Message(role="tool", text=text_of(item.output), call_id=item.call_id))
        elif isinstance(item, _CallItem):
            call = MessageCall(id=item.call_id, name=item.name, arguments=item.arguments)
            if found and found[-1].role == "assistant":
                found[-1] = found[-1].model_copy(update={"calls": (*found[-1].calls, call)})
            else:
                found.append(Message(role="assistant", calls=(call,)))
    return found


def write_response(reply: ChatReply, stamp: Stamp, body: ResponsesBody) -> dict[str, Any]:
    is_cut = reply.finish == "length"
    return _begun(stamp, body) | {
        "status": "incomplete" if is_cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "output": _output(reply, stamp),
        "usage": {
            "input_tokens": reply.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": reply.tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": reply.prompt_tokens + reply.tokens,
        },
    }


def stream_response(reply: ChatReply, stamp: Stamp, body: ResponsesBody) -> Iterator[str]:
    """Server-sent events. A reply is whole before its stream begins, so each text is one piece."""
    count = 0

    def event(kind: str, **fields: Any) -> str:
        nonlocal count
        written = json.dumps({"type": kind, "sequence_number": count, **fields}, ensure_ascii=False)
        count += 1
        return f"event: {kind}\ndata: {written}\n\n"

    yield event("response.created", response=_begun(stamp, body))
    yield event("response.in_progress", response=_begun(stamp, body))
    whole = write_response(reply, stamp, body)
    for index, item in enumerate(whole["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        empty: dict[str, Any] = {"content": []} if item["type"] == "message" else {"arguments": ""}
        yield event("response.output_item.added", output_index=index, item=item | empty | {"status": "in_progress"})
        yield from _text(event, place, item) if item["type"] == "message" else _arguments(event, place, item)
        yield event("response.output_item.done", output_index=index, item=item)
    yield event("response.incomplete" if reply.finish == "length" else "response.completed", response=whole)


def _text(event: Callable[..., str], place: dict[str, Any], item: dict[str, Any]) -> Iterator[str]:
    part = item["content"][0]
    place = place | {"content_index": 0}
    yield event("response.content_part.added", **place, part=part | {"text": ""})
    yield event("response.output_text.delta", **place, delta=part["text"], logprobs=[])
    yield event("response.output_text.done", **place, text=part["text"], logprobs=[])
    yield event("response.content_part.done", **place, part=part)


def _arguments(event: Callable[..., str], place: dict[str, Any], item: dict[str, Any]) -> Iterator[str]:
    yield event("response.function_call_arguments.delta", **place, delta=item["arguments"])
    yield event("response.function_call_arguments.done", **place, name=item["name"], arguments=item["arguments"])


def _begun(stamp: Stamp, body: ResponsesBody) -> dict[str, Any]:
    return {
        "id": f"resp_{stamp.id}",
        "object": "response",
        "created_at": stamp.created,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "model": stamp.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": body.previous_response_id,
        "tool_choice": "auto",
        "tools": [],
        "usage": None,
        "metadata": {},
    }


def _output(reply: ChatReply, stamp: Stamp) -> list[dict[str, Any]]:
    status = "incomplete" if reply.finish == "length" else "completed"
    items: list[dict[str, Any]] = []
    if reply.text or not reply.calls:
        part = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
        items.append(
            {"id": f"msg_{stamp.id}", "type": "message", "role": "assistant", "status": status, "content": [part]}
        )
    for call in reply.calls:
        items.append(
            {
                "id": f"fc_{call.id}",
                "type": "function_call",
                "status": status,
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments,
            }
        )
    return items

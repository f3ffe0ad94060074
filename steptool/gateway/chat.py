"""Chat completions: a request's body read, a reply written whole or as the events of a stream. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from steptool.core.messages import Message, MessageCall, openai_call
from steptool.gateway.base import ChatReply, ChatRequest
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
    "n": (1,),
    "logprobs": (False,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "functions": ([],),
    "function_call": ("none", "auto"),
}
"""Fields that promise something of the reply that a policy cannot give, and their values that promise nothing."""


class _ChatTool(Part):
    type: Literal["function"]
    function: Function


class _CalledFunction(Part):
    name: Name
    arguments: str = ""


class _Call(Part):
    id: str = ""
    type: Literal["function"] = "function"
    function: _CalledFunction


class _ChatMessage(Part):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str = ""
    name: str | None = None

    @model_validator(mode="after")
    def _check(self) -> _ChatMessage:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"a message of {self.role} has tool_calls")
        return self

    def message(self) -> Message:
        calls = [
            MessageCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
            for call in self.tool_calls or ()
        ]
        return Message(
            role="system" if self.role == "developer" else self.role,
            text=text_of(self.content) or self.refusal or "",
            calls=tuple(calls),
            call_id=self.tool_call_id if self.role == "tool" else "",
            name=(self.name or "") if self.role == "tool" else "",
        )


class _StreamOptions(Part):
    include_usage: bool = False


class ChatBody(Part):
    messages: Annotated[list[_ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    model: str = ""
    tools: Annotated[list[_ChatTool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: Choice = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: Any = None
    logprobs: Any = None
    response_format: Any = None
    modalities: Any = None
    audio: Any = None
    functions: Any = None
    function_call: Any = None


def read_chat(raw: bytes) -> tuple[ChatRequest, ChatBody]:
    """Raises Refused for what cannot be read or done."""
    body = read_body(raw, ChatBody)
    refuse_fields(body, UNSUPPORTED)
    choice = body.tool_choice or "auto"
    request = ChatRequest(
        messages=tuple(message.message() for message in body.messages),
        tools=offered([tool.function for tool in body.tools or ()], choice),
        tool_choice=choice,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        model=body.model,
    )
    return request, body


def write_chat(reply: ChatReply, stamp: Stamp) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": _content(reply), "refusal": None}
    if reply.calls:
        message["tool_calls"] = [openai_call(call) for call in reply.calls]
    choice = {"index": 0, "message": message, "finish_reason": reply.finish, "logprobs": None}
    return _envelope(stamp, "chat.completion") | {"choices": [choice], "usage": _usage(reply)}


def stream_chat(reply: ChatReply, stamp: Stamp, *, with_usage: bool) -> Iterator[str]:
    """The data of server-sent events. A reply is whole before its stream begins, so each text is one piece."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return _event(envelope | {"choices": [choice]} | ({"usage": None} if with_usage else {}))

    envelope = _envelope(stamp, "chat.completion.chunk")
    yield chunk({"role": "assistant", "content": _content(reply)})
    for index, call in enumerate(reply.calls):
        yield chunk({"tool_calls": [{"index": index, **openai_call(call)}]})
    yield chunk({}, reply.finish)
    if with_usage:
        yield _event(envelope | {"choices": [], "usage": _usage(reply)})
    yield "data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _envelope(stamp: Stamp, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{stamp.id}", "object": kind, "created": stamp.created, "model": stamp.model}


def _content(reply: ChatReply) -> str | None:
    return None if reply.calls and not reply.text else reply.text


def _usage(reply: ChatReply) -> dict[str, int]:
    total = reply.prompt_tokens + reply.tokens
    return {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.tokens, "total_tokens": total}

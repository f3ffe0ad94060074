"""Anthropic messages: requests with their responses.

    {"system": "…", "messages": […], "tools": […]}                        the messages, the model's among them
    {"request": {"messages": […]}, "response": {"content": […]}}          a request and its response; also input, output
    {"messages": […], "content": […], "role": "assistant"}                the response's content behind them

    text            of its role
    thinking        the thought
    tool_use        a call; those of one message are made at the same time
    tool_result     the reply that names it; `is_error` marks a failure

A log of requests holds an attempt once for each of its requests; the longest is kept (`merging`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import ValidationError

from steptool.core.failures import TOOL_ERROR, error_of
from steptool.core.messages import Message, MessageCall, tool_of
from steptool.core.types import Tool
from steptool.traces.conversation import Conversation, Skipped, Unusable
from steptool.traces.labels import RecordSettings, labels_of
from steptool.traces.records import Record, read_each

_REQUESTS = ("request", "input", "inputs", "body", "params")
_RESPONSES = ("response", "output", "outputs", "message")
_HIDDEN = ("redacted_thinking",)
"""Blocks that say nothing to anybody."""


class Anthropic:
    name: ClassVar[str] = "anthropic"

    class Config(RecordSettings):
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    @staticmethod
    def recognises(source: str, record: Any) -> bool:
        """By what chat completions lack: blocks of these kinds, `input_schema`, a `system` beside the messages."""
        if not isinstance(record, Mapping) or not isinstance(_request(record).get("messages"), list):
            return False
        request, response = _request(record), _response(record)
        offered = request.get("tools")
        schemas = [tool for tool in offered if isinstance(tool, Mapping)] if isinstance(offered, list) else []
        contents = [message.get("content") for message in request["messages"] if isinstance(message, Mapping)]
        blocks = [block for content in contents if isinstance(content, list) for block in content]
        kinds = {block.get("type") for block in blocks if isinstance(block, Mapping)}
        return (
            "system" in request
            or any("input_schema" in tool for tool in schemas)
            or bool(kinds & {"tool_use", "tool_result", "thinking"})
            or isinstance(response.get("content"), list)
        )

    def read(self, source: str) -> Iterator[Conversation | Skipped]:
        return read_each(source, self.of_record)

    def of_record(self, record: Record) -> Iterator[Conversation]:
        """That of one record. Raises Unusable."""
        yield self._conversation(record)

    def _conversation(self, record: Record) -> Conversation:
        if not isinstance(record.value, Mapping) or not isinstance(_request(record.value).get("messages"), list):
            raise Unusable("no record of Anthropic messages: it has no messages", is_broken=True)
        request, response = _request(record.value), _response(record.value)
        told = request.get("system")
        system = [Message(role="system", text="\n".join(_texts(told)))] if told else []
        said = list(request["messages"])
        if response.get("content") is not None:
            said.append({"role": "assistant", "content": response["content"]})
        return Conversation(
            where=record.where,
            messages=(*system, *(part for message in said for part in _messages(message))),
            tools=tuple(_tools(request.get("tools") or [])),
            model=str(response.get("model") or request.get("model") or ""),
            **labels_of(record.value, self.config)._asdict(),
        )


def _request(record: Mapping[str, Any]) -> Mapping[str, Any]:
    nested = (record, *(record.get(name) for name in _REQUESTS))
    found = (part for part in nested if isinstance(part, Mapping) and isinstance(part.get("messages"), list))
    return next(found, record)


def _response(record: Mapping[str, Any]) -> Mapping[str, Any]:
    nested = (record, *(record.get(name) for name in _RESPONSES))
    return next((part for part in nested if isinstance(part, Mapping) and "content" in part), {})


def _tools(offered: Any) -> Iterator[Tool]:
    """Those of the user; the ones of Anthropic's own have no schema of theirs."""
    if not isinstance(offered, list):
        raise Unusable("its tools are no list", is_broken=True)
    for tool in offered:
        if isinstance(tool, Mapping) and "input_schema" in tool:
            try:
                yield tool_of({**tool, "parameters": tool["input_schema"]})
            except (ValidationError, KeyError) as error:
                raise Unusable("one of its tools is none", is_broken=True) from error


def _texts(content: Any) -> list[str]:
    """A text, or blocks of text. Raises Unusable for others."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list) or not all(isinstance(block, Mapping) for block in content):
        raise Unusable("a content is neither a text nor a list of blocks", is_broken=True)
    if any(block.get("type") != "text" for block in content):
        raise Unusable("a message holds parts that are not text")
    return [str(block.get("text") or "") for block in content]


def _messages(written: Any) -> Iterator[Message]:
    """A message of the user may hold replies of tools, and text behind them."""
    role = written.get("role") if isinstance(written, Mapping) else None
    if role not in ("user", "assistant"):
        raise Unusable("a message has no role of Anthropic's", is_broken=True)
    content = written.get("content")
    blocks: Sequence[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    if not isinstance(blocks, list) or not all(isinstance(block, Mapping) for block in blocks):
        raise Unusable("a content is neither a text nor a list of blocks", is_broken=True)
    results = [block for block in blocks if block.get("type") == "tool_result"]
    rest = [block for block in blocks if block.get("type") not in ("tool_result", *_HIDDEN)]
    yield from map(_result, results)
    calls = tuple(_call(block) for block in rest if block.get("type") == "tool_use")
    thought = "\n".join(str(block.get("thinking") or "") for block in rest if block.get("type") == "thinking")
    text = "\n".join(_texts([block for block in rest if block.get("type") not in ("tool_use", "thinking")]))
    if role == "assistant":
        yield Message(role="assistant", text=text, calls=calls, thought=thought)
    elif calls or thought:
        raise Unusable("a user calls a tool", is_broken=True)
    elif text.strip() or not results:
        yield Message(role="user", text=text)


def _call(block: Mapping[str, Any]) -> MessageCall:
    if not isinstance(block.get("name"), str):
        raise Unusable("a call names no tool", is_broken=True)
    arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
    return MessageCall(id=str(block.get("id") or ""), name=block["name"], arguments=arguments)


def _result(block: Mapping[str, Any]) -> Message:
    content = block.get("content")
    text = "\n".join(_texts(content)) if content else ""
    error = (error_of(text) or TOOL_ERROR) if block.get("is_error") is True else None
    return Message(role="tool", text=text, call_id=str(block.get("tool_use_id") or ""), error=error)

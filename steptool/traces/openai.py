"""OpenAI chat completions: fine-tuning files, logs of requests with their responses, and batches.

    {"messages": […], "tools": […]}                                   the messages, the model's among them
    {"messages": […], "choices": […]}                                 … and the response's behind them
    {"request": {"messages": […], "tools": […]}, "response": {…}}     a request and its response; also input(s), body
                                                                      and output(s), completion; streamed chunks joined
    {"custom_id": …, "body": {…}} and {"custom_id": …, "response": …} input and output of a batch, in one folder
    [{"role": "user", …}, …]                                          messages alone

A log of requests holds an attempt once for each of its requests; the longest is kept (`importing`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from pydantic import ValidationError

from steptool.core.messages import Message, MessageCall, tool_of
from steptool.core.types import Tool
from steptool.traces.conversation import Conversation, Skipped, Unusable
from steptool.traces.labels import RecordSettings, labels_of
from steptool.traces.records import Record, read_each

_REQUESTS = ("request", "input", "inputs", "kwargs")
_RESPONSES = ("response", "output", "outputs", "completion")
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Types of content parts that are text, and where it stands in them."""


class OpenAi:
    name: ClassVar[str] = "openai"

    class Config(RecordSettings):
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    @staticmethod
    def recognises(source: str, record: Any) -> bool:
        """Whether a record of a file is one of these."""
        if isinstance(record, list):
            return bool(record) and all(isinstance(item, Mapping) and "role" in item for item in record)
        if not isinstance(record, Mapping):
            return False
        return isinstance(_request(record).get("messages"), list) or (_has_batch_id(record) and "response" in record)

    def read(self, source: str) -> Iterator[Conversation | Skipped]:
        waiting: dict[str, tuple[Record, bool]] = {}
        """Halves of batches by their id, and whether it is the output."""
        yield from read_each(source, partial(self._read_or_join, waiting))
        for record, is_output in waiting.values():
            lacks = "request" if is_output else "response"
            yield Skipped(where=record.where, reason=f"half of a batch, whose {lacks} is not in the source")

    def _read_or_join(self, waiting: dict[str, tuple[Record, bool]], record: Record) -> Iterator[Conversation]:
        is_half = _has_batch_id(record.value) and not _is_whole(record.value)
        yield from self._joined(waiting, record) if is_half else self.of_record(record)

    def _joined(self, waiting: dict[str, tuple[Record, bool]], record: Record) -> Iterator[Conversation]:
        id, is_output = record.value["custom_id"], "response" in record.value
        other, of_output = waiting.pop(id, (None, not is_output))
        if other is None or of_output == is_output:
            waiting[id] = (record, is_output)
            return
        request, output = (other, record) if is_output else (record, other)
        whole = {**output.value, "request": request.value.get("body")}
        yield from self.of_record(Record(request.where, whole))

    def of_record(self, of: Record) -> Iterator[Conversation]:
        """The conversations of one record, one a choice of its response. Raises Unusable."""
        where, record = of.where, {"messages": of.value} if isinstance(of.value, list) else of.value
        if not isinstance(record, Mapping) or not isinstance(_request(record).get("messages"), list):
            raise Unusable("no record of chat completions: it has no messages", is_broken=True)
        request, response = _request(record), _response(record)
        said, labels = request["messages"], labels_of(record, self.config)
        replies = [[reply] for reply in _replies(response)] or [[]]
        failed = response if isinstance(response, Mapping) else record
        if not replies[0] and failed.get("error"):
            raise Unusable("the response is an error")
        for reply in replies:
            yield Conversation(
                where=where,
                messages=messages([*said, *reply]),
                tools=tools(request),
                model=str(
                    (response.get("model") if isinstance(response, Mapping) else "") or request.get("model") or ""
                ),
                **labels._asdict(),
            )


def messages(written: Sequence[Any]) -> tuple[Message, ...]:
    """Messages of chat completions. Raises Unusable for what is none, and for one that text cannot hold."""
    return tuple(_message(message) for message in written)


def tools(request: Mapping[str, Any]) -> tuple[Tool, ...]:
    """The functions of `tools`, or of `functions`, as they once were called; other kinds of tools are left out.

    Raises Unusable for what is none.
    """
    offered = request.get("tools") or request.get("functions") or []
    offered = _parsed(offered) if isinstance(offered, str) else offered
    if not isinstance(offered, list):
        raise Unusable("its tools are no list", is_broken=True)
    found = []
    for item in offered:
        if isinstance(item, Mapping) and item.get("type", "function") == "function":
            function = item.get("function", item)
            try:
                found.append(tool_of(function))
            except (ValidationError, KeyError, TypeError, AttributeError) as error:
                raise Unusable("one of its tools is no function", is_broken=True) from error
    return tuple(found)


def text_of(content: Any) -> str:
    """A text, or parts that are text. Raises Unusable for others: an image cannot be learned from."""
    if content is None:
        return ""
    if not isinstance(content, list):
        return json_of(content)
    found = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, str):
            found.append(part)
        elif kind in _TEXTS and isinstance(part.get(_TEXTS[kind]), str):
            found.append(part[_TEXTS[kind]])
        else:
            raise Unusable("a message holds parts that are not text")
    return "\n".join(found)


def json_of(value: Any) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def arguments_of(written: Any) -> str:
    """Arguments of a call as JSON text; some sources have the object, or leave out an empty one."""
    return json_of(written if isinstance(written, str) else written or {})


def _message(written: Any) -> Message:
    role = written.get("role") if isinstance(written, Mapping) else None
    if role in ("tool", "function"):
        return Message(
            role="tool",
            text=text_of(written.get("content")),
            call_id=str(written.get("tool_call_id") or ""),
            name=str(written.get("name") or ""),
        )
    if role not in ROLES:
        raise Unusable("a message has no role of chat completions", is_broken=True)
    thought = written.get("reasoning_content") or written.get("reasoning")
    text = text_of(written.get("content")) or str(written.get("refusal") or "") or _spoken(written)
    is_model = role == "assistant"
    return Message(
        role=ROLES[role],
        text=text,
        calls=tuple(_calls(written)) if is_model else (),
        thought=thought if is_model and isinstance(thought, str) else "",
    )


def _spoken(message: Mapping[str, Any]) -> str:
    """What the model said in its audio."""
    audio = message.get("audio")
    return str(audio.get("transcript") or "") if isinstance(audio, Mapping) else ""


def _calls(message: Mapping[str, Any]) -> Iterator[MessageCall]:
    """`function_call` is how a single call was once written, without an id."""
    single = message.get("function_call")
    written = message.get("tool_calls") or ([{"function": single}] if single else [])
    if not isinstance(written, list):
        raise Unusable("its tool calls are no list", is_broken=True)
    for call in written:
        if isinstance(call, Mapping) and call.get("type") == "custom":
            raise Unusable("it calls a tool that takes a text instead of arguments")
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise Unusable("a tool call names no function", is_broken=True)
        arguments = arguments_of(function.get("arguments"))
        yield MessageCall(id=str(call.get("id") or ""), name=function["name"], arguments=arguments)


# The shapes of records


def _has_batch_id(record: Any) -> bool:
    return isinstance(record, Mapping) and isinstance(record.get("custom_id"), str)


def _is_whole(record: Mapping[str, Any]) -> bool:
    """Whether it has both halves of a batch, or is no half of one."""
    has_request = isinstance(_request(record).get("messages"), list)
    return has_request == ("response" in record)


def _request(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object that has the messages; the record itself where none has."""
    nested = [record, *(record.get(name) for name in (*_REQUESTS, "body"))]
    inner = [part.get("body") for part in nested if isinstance(part, Mapping)]
    found = (part for part in (*nested, *inner) if isinstance(part, Mapping) and isinstance(part.get("messages"), list))
    return next(found, record)


def _response(record: Mapping[str, Any]) -> Any:
    if "choices" in record:
        return record
    found = next((record[name] for name in _RESPONSES if record.get(name) is not None), None)
    body = found.get("body") if isinstance(found, Mapping) else None
    return found if body is None else body


def _replies(response: Any) -> list[Mapping[str, Any]]:
    """The model's messages: one a choice, of streamed chunks the joined one, or a bare message."""
    if isinstance(response, list):
        chunks = [item for item in response if isinstance(item, Mapping)]
        is_stream = bool(chunks) and all("choices" in item for item in chunks)
        return [_joined_chunks(chunks)] if is_stream else [item for item in chunks if item.get("role") == "assistant"]
    if isinstance(response, str):
        return [{"role": "assistant", "content": response}]
    if not isinstance(response, Mapping):
        return []
    if isinstance(response.get("choices"), list):
        choices = [choice for choice in response["choices"] if isinstance(choice, Mapping)]
        return [choice["message"] for choice in choices if isinstance(choice.get("message"), Mapping)]
    message = response.get("message", response)
    return [message] if isinstance(message, Mapping) and message.get("role") == "assistant" else []


def _joined_chunks(chunks: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The message that the deltas of the first choice make up."""
    text, thought, calls = "", "", dict[int, dict[str, Any]]()
    for chunk in chunks:
        for choice in chunk.get("choices") or []:
            if not isinstance(choice, Mapping) or choice.get("index", 0) != 0:
                continue
            delta = choice.get("delta") or {}
            text += delta.get("content") or delta.get("refusal") or ""
            thought += delta.get("reasoning_content") or delta.get("reasoning") or ""
            for part in delta.get("tool_calls") or []:
                call = calls.setdefault(part.get("index", 0), {"id": "", "function": {"name": "", "arguments": ""}})
                call["id"] += part.get("id") or ""
                for key, value in (part.get("function") or {}).items():
                    call["function"][key] = call["function"].get(key, "") + (value or "")
    joined = [calls[index] for index in sorted(calls)]
    return {"role": "assistant", "content": text, "reasoning_content": thought, "tool_calls": joined}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unusable("its tools are no JSON", is_broken=True) from error

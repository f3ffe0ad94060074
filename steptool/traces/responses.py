"""OpenAI Responses: requests with their responses, or lists of items.

    {"input": "…" or […], "tools": […], "output": […]}          a response as it is stored, its input beside it
    {"request": {"input": …}, "response": {"output": […]}}      a request and its response
    {"items": […]}                                              items alone

    message                  the message of its role
    reasoning                the thought of what follows, where it is shown
    function_call            a call; those in a row are made at the same time
    function_call_output     the reply that names it

A response that continues another by `previous_response_id` has that one's items before its own; both have to be in the
source, in their order. What a tool of OpenAI's own did, such as a web search, is not recorded, and skipped by its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from steptool.core.messages import Message, MessageCall
from steptool.traces.conversation import Conversation, Skipped, Unusable
from steptool.traces.labels import RecordSettings, labels_of
from steptool.traces.openai import ROLES, arguments_of, text_of, tools
from steptool.traces.records import Record, read_each

_KINDS = ("message", "reasoning", "function_call", "function_call_output")


class Responses:
    name: ClassVar[str] = "responses"

    class Config(RecordSettings):
        pass

    def __init__(self, config: Config) -> None:
        self.config = config
        self._earlier: dict[str, list[Any]] = {}
        """Items up to the end of a response, by its id."""

    @staticmethod
    def recognises(source: str, record: Any) -> bool:
        if not isinstance(record, Mapping):
            return False
        request, response = _halves(record)
        has_input = isinstance(request.get("input"), list | str) and "output" in response
        return isinstance(record.get("items"), list) or has_input or response.get("object") == "response"

    def read(self, source: str) -> Iterator[Conversation | Skipped]:
        return read_each(source, self.of_record)

    def of_record(self, record: Record) -> Iterator[Conversation]:
        """That of one record. Raises Unusable."""
        yield self._conversation(record)

    def _conversation(self, record: Record) -> Conversation:
        if not self.recognises("", record.value):
            raise Unusable("no record of Responses: it has neither input and output, nor items", is_broken=True)
        request, response = _halves(record.value)
        items = self._items(record.value, request, response)
        if isinstance(response.get("id"), str):
            self._earlier[response["id"]] = items
        instructions = request.get("instructions") or response.get("instructions")
        told = [Message(role="system", text=instructions)] if isinstance(instructions, str) else []
        return Conversation(
            where=record.where,
            messages=(*told, *messages(items)),
            tools=tools(request if request.get("tools") else response),
            model=str(response.get("model") or request.get("model") or ""),
            **labels_of(record.value, self.config)._asdict(),
        )

    def _items(self, record: Mapping[str, Any], request: Mapping[str, Any], response: Mapping[str, Any]) -> list[Any]:
        if isinstance(record.get("items"), list):
            return list(record["items"])
        before = request.get("previous_response_id") or response.get("previous_response_id")
        if before and before not in self._earlier:
            raise Unusable("it continues a response that does not stand before it in the source")
        asked, said = request.get("input"), response.get("output")
        if not isinstance(asked, list | str) or not isinstance(said, list | str):
            raise Unusable("it lacks what was asked, or the response")
        asked = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
        said = [{"role": "assistant", "content": said}] if isinstance(said, str) else said
        return [*self._earlier.get(before or "", []), *asked, *said]


def messages(items: Sequence[Any]) -> Iterator[Message]:
    """Raises Unusable for an item that is none, and for one that text cannot hold."""
    for item in items:
        if not isinstance(item, Mapping):
            raise Unusable("an item is no object", is_broken=True)
        kind = item.get("type") or "message"
        if kind not in _KINDS:
            raise Unusable(f"it holds an item of another kind: {str(kind)[:40]}")
        if kind == "message":
            if item.get("role") not in ROLES:
                raise Unusable("a message has no role of Responses", is_broken=True)
            yield Message(role=ROLES[item["role"]], text=text_of(item.get("content")))
        elif kind == "reasoning":
            if thought := "\n".join(_texts(item.get("content")) or _texts(item.get("summary"))):
                yield Message(role="assistant", thought=thought)
        elif kind == "function_call":
            yield Message(role="assistant", calls=(_call(item),))
        else:
            yield Message(role="tool", text=text_of(item.get("output")), call_id=str(item.get("call_id") or ""))


def _halves(record: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    request, response = record.get("request"), record.get("response")
    response = response.get("body", response) if isinstance(response, Mapping) else response
    return (request if isinstance(request, Mapping) else record), (
        response if isinstance(response, Mapping) else record
    )


def _texts(parts: Any) -> list[str]:
    if not isinstance(parts, list):
        return []
    return [part["text"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str)]


def _call(item: Mapping[str, Any]) -> MessageCall:
    name, id = item.get("name"), str(item.get("call_id") or item.get("id") or "")
    if not isinstance(name, str):
        raise Unusable("a call names no function", is_broken=True)
    return MessageCall(id=id, name=name, arguments=arguments_of(item.get("arguments")))

"""OpenTelemetry spans as JSON: what a collector's file exporter writes, a line each or whole, and what the SDK prints.

    steptool traces import spans.jsonl --from otel

Read are the requests to chat models, in any of these spellings of their attributes:

    gen_ai.input.messages, gen_ai.output.messages         the semantic conventions of GenAI
    gen_ai.user.message, gen_ai.choice (events)           the same, up to version 1.36
    llm.input_messages.0.message.role                     OpenInference (Phoenix, Arize)
    gen_ai.prompt.0.role, gen_ai.completion.0.content     OpenLLMetry (Traceloop)

An attempt is a trace, made of its requests (`spans`). A result of an evaluation is its label.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from steptool.traces.conversation import Conversation, Skipped, Unusable
from steptool.traces.labels import RecordSettings
from steptool.traces.openai import json_of
from steptool.traces.records import ODD, records
from steptool.traces.spans import attempt_of_spans, labels_of_trace

_EVENTS = {f"gen_ai.{role}.message": role for role in ("system", "user", "assistant", "tool")}
_CHOICE, _DETAILS, _EVALUATION = (
    "gen_ai.choice",
    "gen_ai.client.inference.operation.details",
    "gen_ai.evaluation.result",
)
MOST_LEVELS = 50
"""Of a name with dots in it; what is below them is one name."""


@dataclass
class _Span:
    trace: str
    start: int
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


class Otel:
    name: ClassVar[str] = "otel"

    class Config(RecordSettings):
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    @staticmethod
    def recognises(source: str, record: Any) -> bool:
        if not isinstance(record, Mapping):
            return False
        return "resourceSpans" in record or ("context" in record and "attributes" in record)

    def read(self, source: str) -> Iterator[Conversation | Skipped]:
        """Trace by trace, in the order in which they begin in the files; the requests to models are held in memory."""
        spans: dict[str, _Span] = {}
        apart: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
        for record in records(source):
            if isinstance(record, Skipped):
                yield record
                continue
            try:
                found, logged = dict(_spans(record.value)), list(_logged(record.value))
            except ODD:
                found, logged = {}, []
            if not found and not logged and not _is_empty(record.value):
                yield Skipped(where=record.where, reason="no spans of OpenTelemetry", is_broken=True)
            spans |= found
            for id, event in logged:
                apart[id].append(event)
        traces: dict[str, list[_Span]] = defaultdict(list)
        for id, span in spans.items():
            span.events += apart[id]
            traces[span.trace].append(span)
        for id, of_trace in traces.items():
            yield from self._attempts(f"trace {id}", sorted(of_trace, key=lambda span: span.start))

    def _attempts(self, where: str, spans: list[_Span]) -> Iterator[Conversation | Skipped]:
        noted: dict[str, Any] = {"attributes": nested(spans[0].attributes)}
        for span in spans:
            noted |= _evaluations(span)
        odd = "an attribute of a span is not what its convention says"
        return attempt_of_spans(where, spans, _request, labels_of_trace(noted, self.config), odd)


# Spans of a record


def _is_empty(record: Any) -> bool:
    """Whether it is an export without a span, as collectors write them, too."""
    return isinstance(record, Mapping) and not record.keys() - {"resourceSpans", "resourceLogs", "resourceMetrics"}


def _spans(record: Any) -> Iterator[tuple[str, _Span]]:
    """By their ids."""
    if not isinstance(record, Mapping):
        return
    context = record.get("context")
    if isinstance(context, Mapping) and isinstance(record.get("attributes"), Mapping):  # as the SDK prints it
        events = [(str(event.get("name")), dict(event.get("attributes") or {})) for event in _list(record, "events")]
        id, trace = str(context.get("span_id")), str(context.get("trace_id"))
        start = _nanoseconds(record.get("start_time"))
        yield id, _Span(trace, start, dict(record["attributes"]), events)
    for resource in _list(record, "resourceSpans"):
        for scope in _list(resource, "scopeSpans"):
            for span in _list(scope, "spans"):
                events = [(str(event.get("name")), _attributes(event)) for event in _list(span, "events")]
                start = _nanoseconds(span.get("startTimeUnixNano"))
                yield str(span.get("spanId")), _Span(str(span.get("traceId")), start, _attributes(span), events)


def _logged(record: Any) -> Iterator[tuple[str, tuple[str, dict[str, Any]]]]:
    """Events that were exported as logs, by the id of their span."""
    if not isinstance(record, Mapping):
        return
    for resource in _list(record, "resourceLogs"):
        for scope in _list(resource, "scopeLogs"):
            for log in _list(scope, "logRecords"):
                attributes, body = _attributes(log), _value(log.get("body") or {})
                name = str(log.get("eventName") or attributes.get("event.name") or "")
                yield str(log.get("spanId")), (name, attributes | (body if isinstance(body, dict) else {}))


def _list(value: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = value.get(name)
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def _attributes(value: Mapping[str, Any]) -> dict[str, Any]:
    return {str(item.get("key")): _value(item.get("value") or {}) for item in _list(value, "attributes")}


def _value(written: Any) -> Any:
    """A value as OTLP writes it in JSON: {"stringValue": "a"}, {"intValue": "1"}, …"""
    if not isinstance(written, Mapping):
        return written
    if "arrayValue" in written:
        return [_value(item) for item in _list(written["arrayValue"], "values")]
    if "kvlistValue" in written:
        return {str(item.get("key")): _value(item.get("value")) for item in _list(written["kvlistValue"], "values")}
    if "intValue" in written:
        return int(written["intValue"])
    return next((written[name] for name in ("stringValue", "doubleValue", "boolValue") if name in written), None)


def _nanoseconds(written: Any) -> int:
    """For the order alone: a number, or a date as text, of which the digits are in order."""
    digits = "".join(c for c in str(written or "") if c.isdigit())
    return int(digits) if digits else 0


# A request to a model


def _request(span: _Span) -> tuple[dict[str, Any], Any]:
    """As a request and a response of chat completions; empty where it is none to a chat model."""
    flat = dict(span.attributes)
    for name, attributes in span.events:
        if name == _DETAILS:
            flat |= attributes
    tree = nested(flat)
    if "gen_ai.input.messages" in flat:
        asked, said = _conventional(flat)
    elif tree.get("llm", {}).get("input_messages"):
        asked, said = _open_inference(tree["llm"])
    elif isinstance(tree.get("gen_ai", {}).get("prompt"), list):
        asked, said = _open_llmetry(tree["gen_ai"])
    else:
        asked, said = _of_events(span.events)
    if not asked:
        return {}, {}
    model = flat.get("gen_ai.response.model") or flat.get("gen_ai.request.model") or flat.get("llm.model_name") or ""
    return {"messages": asked, "tools": _tools(flat, tree), "model": model}, {
        "choices": [{"message": message} for message in said]
    }


def _conventional(flat: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    told = _parsed(flat.get("gen_ai.system_instructions") or [])
    system = [{"role": "system", "parts": told}] if told else []
    asked = [each for message in (*system, *_parsed(flat["gen_ai.input.messages"])) for each in _of_parts(message)]
    return asked, [each for message in _parsed(flat.get("gen_ai.output.messages") or []) for each in _of_parts(message)]


def _of_parts(message: Any) -> Iterator[dict[str, Any]]:
    """A message of parts as one of chat completions; one for each reply of a tool."""
    if not isinstance(message, Mapping):
        raise Unusable("a message is no object", is_broken=True)
    parts = [part for part in message.get("parts") or [] if isinstance(part, Mapping)]
    texts, thoughts, calls = [], list[str](), []
    for part in parts:
        kind = part.get("type")
        if kind == "tool_call":
            calls.append(
                {"id": part.get("id"), "function": {"name": part.get("name"), "arguments": part.get("arguments")}}
            )
        elif kind == "tool_call_response":
            content = part.get("response", part.get("result"))
            yield {"role": "tool", "tool_call_id": part.get("id"), "content": json_of(content)}
        elif kind == "reasoning":
            thoughts.append(str(part.get("content")))
        else:
            texts.append({"type": "text", "text": part.get("content")} if kind == "text" else part)
    if texts or calls or thoughts or not parts:
        yield {
            "role": message.get("role"),
            "content": texts,
            "tool_calls": calls,
            "reasoning_content": "\n".join(thoughts),
        }


def _open_inference(llm: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    def message(item: Any) -> dict[str, Any]:
        written = item.get("message", {}) if isinstance(item, Mapping) else {}
        contents = [part.get("message_content", {}) for part in written.get("contents") or []]
        calls = [call.get("tool_call", {}) for call in written.get("tool_calls") or []]
        return {**written, "content": written.get("content") or contents or None, "tool_calls": calls}

    asked, said = _items(llm, "input_messages"), _items(llm, "output_messages")
    return [message(item) for item in asked], [message(item) for item in said]


def _open_llmetry(gen_ai: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    def message(item: Any) -> dict[str, Any]:
        written = item if isinstance(item, Mapping) else {}
        calls = [{"id": call.get("id"), "function": call} for call in written.get("tool_calls") or []]
        return {"role": "assistant", **written, "content": _parsed_text(written.get("content")), "tool_calls": calls}

    asked, said = _items(gen_ai, "prompt"), _items(gen_ai, "completion")
    return [message(item) for item in asked], [message(item) for item in said]


def _of_events(events: list[tuple[str, dict[str, Any]]]) -> tuple[list[Any], list[Any]]:
    asked, said = [], []
    for name, attributes in events:
        body = _parsed(attributes.get("gen_ai.event.content") or {}) or attributes
        if name in _EVENTS:
            role = _EVENTS[name]
            asked.append({"role": role, **_plain(body), **({"tool_call_id": body.get("id")} if role == "tool" else {})})
        elif name == _CHOICE:
            message = _parsed(body.get("message") or {})
            said.append({"role": "assistant", **_plain(body), **(_plain(message) if isinstance(message, dict) else {})})
    return asked, said


def _plain(body: Mapping[str, Any]) -> dict[str, Any]:
    return {"content": body.get("content"), "tool_calls": _parsed(body.get("tool_calls") or [])}


def _tools(flat: Mapping[str, Any], tree: Mapping[str, Any]) -> list[Any]:
    """In OpenAI's form, from whichever attribute has them."""
    if defined := _parsed(flat.get("gen_ai.tool.definitions") or []):
        return list(defined)
    offered = [_parsed(item.get("tool", {}).get("json_schema") or {}) for item in _items(tree.get("llm", {}), "tools")]
    request = tree.get("llm", {}).get("request", {})
    functions = _items(request, "functions") if isinstance(request, Mapping) else []
    return [tool for tool in offered if tool] or [
        {"type": "function", "function": {**item, "parameters": _parsed(item.get("parameters") or {})}}
        for item in functions
    ]


def _evaluations(span: _Span) -> dict[str, Any]:
    found = {}
    for name, attributes in span.events:
        if name == _EVALUATION:
            score = attributes.get("gen_ai.evaluation.score.value", attributes.get("gen_ai.evaluation.score.label"))
            found[str(attributes.get("gen_ai.evaluation.name"))] = score
    return found


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a.0.b": 1}` as `{"a": [{"b": 1}]}`. A name that is a value and has names below it keeps these."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *above, last = name.split(".", MOST_LEVELS)
        place = tree
        for part in above:
            inner = place.get(part)
            place[part] = place = inner if isinstance(inner, dict) else {}
        if not isinstance(place.get(last), dict):
            place[last] = value
    return {name: _listed(value) for name, value in tree.items()}


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(name.isdecimal() for name in value):
        return [_listed(value[name]) for name in sorted(value, key=int)]
    return {name: _listed(each) for name, each in value.items()}


def _items(value: Any, name: str) -> list[Mapping[str, Any]]:
    return _list(value, name) if isinstance(value, Mapping) else []


def _parsed(written: Any) -> Any:
    """What a text of JSON holds, and anything else as it is. Raises Unusable for text that is none."""
    if not isinstance(written, str):
        return written
    try:
        return json.loads(written)
    except (ValueError, RecursionError) as error:
        raise Unusable("an attribute of a span is no JSON", is_broken=True) from error


def _parsed_text(written: Any) -> Any:
    """Content parts that were written as JSON, else the text itself."""
    try:
        parts = json.loads(written) if isinstance(written, str) and written.startswith("[{") else written
    except (ValueError, RecursionError):
        return written
    return parts

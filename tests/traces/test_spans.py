"""Traces of several requests come to one attempt each, in whichever spelling of OpenTelemetry they are.

request   s Be brief.  u What does Dune cost?                      → find(Dune)
request   … find(Dune)  t 9.5                                     → It costs 9.5.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steptool.core.messages import Message, MessageCall
from steptool.traces.conversation import Conversation, Skipped
from steptool.traces.kinds import kind_of
from steptool.traces.labels import Labels
from steptool.traces.mlflow import MlflowTraces
from steptool.traces.otel import Otel, nested
from steptool.traces.spans import ANOTHER, NOTHING, Requests, attempt_of_trace
from steptool.traces.steps import Attempt, attempt_of

ARGUMENTS = '{"title": "Dune"}'
SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
FUNCTION = {"name": "find", "description": "price", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": ARGUMENTS}}
ASKED: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What does Dune cost?"},
]
CALLED: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [CALL]}
REPLY = {"role": "tool", "tool_call_id": "c1", "content": "9.5"}
ANSWER = {"role": "assistant", "content": "It costs 9.5."}
REQUESTS = [(ASKED, CALLED), ([*ASKED, CALLED, REPLY], ANSWER)]


# Requests of one trace


def of(*pairs: tuple[list[dict[str, Any]], dict[str, Any]]) -> list[Conversation | Skipped]:
    requests = Requests()
    read = [
        each
        for messages, reply in pairs
        for each in requests.read("t", {"messages": messages, "tools": [TOOL]}, {"choices": [{"message": reply}]})
    ]
    return list(attempt_of_trace("trace 1", read, Labels(solved=1.0, evidence="label good")))


def texts(found: Conversation | Skipped) -> list[str]:
    assert isinstance(found, Conversation)
    return [message.text or message.calls[0].name for message in found.messages if message.role != "system"]


WHOLE = ["What does Dune cost?", "find", "9.5", "It costs 9.5."]


def test_the_last_request_holds_all_of_it_and_the_label_is_that_of_the_trace() -> None:
    (found,) = of(*REQUESTS)
    assert texts(found) == WHOLE
    assert isinstance(found, Conversation)
    assert (found.where, found.solved, [tool.name for tool in found.tools]) == ("trace 1", 1.0, ["find"])


def test_a_request_that_two_spans_noted_counts_once_and_so_does_one_with_another_system_message() -> None:
    other = [{"role": "system", "content": "You are a second one."}, *ASKED[1:]]
    assert len(of(REQUESTS[0], REQUESTS[0], (other, CALLED), REQUESTS[1])) == 1


def test_of_several_agents_the_longest_is_the_attempt_and_the_others_are_counted() -> None:
    aside = ([{"role": "user", "content": "Is this polite?"}], {"role": "assistant", "content": "Yes."})
    found = of(aside, *REQUESTS)
    assert texts(found[0]) == WHOLE
    assert found[1:] == [Skipped(where="trace 1", reason=ANOTHER)]


def test_a_trace_without_a_request_is_skipped() -> None:
    assert of() == [Skipped(where="trace 1", reason=NOTHING)]


# Spellings of OpenTelemetry


def written(value: Any) -> dict[str, Any]:
    """As OTLP writes a value in JSON."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [written(item) for item in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": [{"key": key, "value": written(item)} for key, item in value.items()]}}
    return {"stringValue": str(value)}


def attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": written(value)} for key, value in values.items() if value is not None]


def parts(message: dict[str, Any]) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    if message["role"] == "tool":
        found = [{"type": "tool_call_response", "id": "c1", "response": "9.5"}]
    elif message.get("tool_calls"):
        found = [{"type": "tool_call", "id": "c1", "name": "find", "arguments": {"title": "Dune"}}]
    else:
        found = [{"type": "text", "content": message["content"]}]
    return {"role": message["role"], "parts": found}


def conventional(messages: list[dict[str, Any]], reply: dict[str, Any]) -> dict[str, Any]:
    return {
        "attributes": {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "gpt",
            "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be brief."}]),
            "gen_ai.input.messages": json.dumps([parts(each) for each in messages[1:]]),
            "gen_ai.output.messages": json.dumps([parts(reply) | {"finish_reason": "stop"}]),
            "gen_ai.tool.definitions": json.dumps([{"type": "function", **FUNCTION}]),
        }
    }


def structured(messages: list[dict[str, Any]], reply: dict[str, Any]) -> dict[str, Any]:
    """The same, as values and not as JSON text, noted by an event."""
    found = conventional(messages, reply)["attributes"]
    kept = {key: json.loads(value) for key, value in found.items() if value.startswith("[")}
    event = {"name": "gen_ai.client.inference.operation.details", "attributes": attributes(kept)}
    return {"attributes": {"gen_ai.request.model": "gpt"}, "events": [event]}


def with_events(messages: list[dict[str, Any]], reply: dict[str, Any]) -> dict[str, Any]:
    events = []
    for message in messages:
        values = {
            "content": message.get("content"),
            "tool_calls": message.get("tool_calls"),
            "id": message.get("tool_call_id"),
        }
        events.append({"name": f"gen_ai.{message['role']}.message", "attributes": attributes(values)})
    choice = {"index": 0, "message": {key: value for key, value in reply.items() if value is not None}}
    events.append({"name": "gen_ai.choice", "attributes": attributes(choice)})
    return {"attributes": {"gen_ai.request.model": "gpt"}, "events": events}


def open_inference(messages: list[dict[str, Any]], reply: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {"openinference.span.kind": "LLM", "llm.model_name": "gpt"}
    values["llm.tools.0.tool.json_schema"] = json.dumps(TOOL)
    for side, listed in (("input", messages), ("output", [reply])):
        for number, message in enumerate(listed):
            at = f"llm.{side}_messages.{number}.message"
            values[f"{at}.role"] = message["role"]
            values[f"{at}.tool_call_id"] = message.get("tool_call_id")
            if message["role"] == "user":
                values[f"{at}.contents.0.message_content.type"] = "text"
                values[f"{at}.contents.0.message_content.text"] = message["content"]
            else:
                values[f"{at}.content"] = message["content"]
            if message.get("tool_calls"):
                values[f"{at}.tool_calls.0.tool_call.id"] = "c1"
                values[f"{at}.tool_calls.0.tool_call.function.name"] = "find"
                values[f"{at}.tool_calls.0.tool_call.function.arguments"] = ARGUMENTS
    return {"attributes": values}


def open_llmetry(messages: list[dict[str, Any]], reply: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {"gen_ai.request.model": "gpt"}
    for key, value in FUNCTION.items():
        values[f"llm.request.functions.0.{key}"] = json.dumps(value) if isinstance(value, dict) else value
    for side, listed in (("prompt", messages), ("completion", [reply])):
        for number, message in enumerate(listed):
            at = f"gen_ai.{side}.{number}"
            values |= {f"{at}.{key}": message.get(key) for key in ("role", "content", "tool_call_id")}
            if message.get("tool_calls"):
                values |= {f"{at}.tool_calls.0.id": "c1", f"{at}.tool_calls.0.name": "find"}
                values[f"{at}.tool_calls.0.arguments"] = ARGUMENTS
    return {"attributes": values}


SPELLINGS = [conventional, structured, with_events, open_inference, open_llmetry]


def otlp(spans: list[dict[str, Any]], trace: str = "t1") -> dict[str, Any]:
    made = [
        {
            "traceId": trace,
            "spanId": f"{trace}-{number}",
            "startTimeUnixNano": str(number),
            "attributes": attributes(span["attributes"]),
            "events": span.get("events", []),
        }
        for number, span in enumerate(spans)
    ]
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": made}]}]}


def read(path: Path, **settings: Any) -> list[Conversation | Skipped]:
    return list(Otel(Otel.Config.model_validate(settings)).read(str(path)))


EXPECTED = (
    Message(role="user", text="What does Dune cost?"),
    Message(role="assistant", calls=(MessageCall(id="c1", name="find", arguments=ARGUMENTS),)),
    Message(role="tool", text="9.5", call_id="c1"),
    Message(role="assistant", text="It costs 9.5."),
)


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_every_spelling_gives_the_same_conversation(spelled: Any, tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    agent = {"attributes": {"gen_ai.operation.name": "invoke_agent"}}
    spans = [agent, *(spelled(*pair) for pair in REQUESTS)]
    file.write_text(
        "\n".join(json.dumps(otlp([span], "t1")).replace("t1-0", f"t1-{n}") for n, span in enumerate(spans))
    )
    (found,) = read(file)
    assert isinstance(found, Conversation)
    assert tuple(each for each in found.messages if each.role != "system") == EXPECTED
    offered = [] if spelled is with_events else [("find", SCHEMA)]  # events do not say what was offered
    assert ([(tool.name, tool.parameters) for tool in found.tools], found.model) == (offered, "gpt")
    attempt = attempt_of(found)
    assert isinstance(attempt, Attempt)
    assert (attempt.answer, len(attempt.steps)) == ("It costs 9.5.", 2)


def test_traces_that_are_mixed_in_a_file_are_told_apart_and_the_kind_is_guessed(tmp_path: Path) -> None:
    file = tmp_path / "spans.json"
    first, second = (otlp([conventional(*pair) for pair in REQUESTS], trace) for trace in ("a", "b"))
    file.write_text(json.dumps({"resourceSpans": first["resourceSpans"] + second["resourceSpans"]}))
    assert [each.where for each in read(file)] == ["trace a", "trace b"]
    assert kind_of(str(file)) == "otel"


def test_a_result_of_an_evaluation_is_the_label(tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    values = {"gen_ai.evaluation.name": "relevance", "gen_ai.evaluation.score.value": 0.5}
    spans = [conventional(*pair) for pair in REQUESTS]
    spans[1]["events"] = [{"name": "gen_ai.evaluation.result", "attributes": attributes(values)}]
    file.write_text(json.dumps(otlp(spans)))
    (found,) = read(file)
    assert isinstance(found, Conversation)
    assert (found.solved, found.evidence) == (0.5, "label relevance of the source")


def test_events_that_are_logged_apart_belong_to_their_span(tmp_path: Path) -> None:
    spans = [with_events(*pair) for pair in REQUESTS]
    logs = [
        {"spanId": f"t1-{number}", "eventName": event["name"], "body": {"kvlistValue": {"values": event["attributes"]}}}
        for number, span in enumerate(spans)
        for event in span.pop("events")
    ]
    (tmp_path / "logs.json").write_text(json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": logs}]}]}))
    (tmp_path / "spans.json").write_text(json.dumps(otlp(spans)))
    (found,) = read(tmp_path)
    assert texts(found) == WHOLE


def test_spans_as_the_sdk_prints_them(tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    lines = [
        {
            "context": {"trace_id": "0x1", "span_id": f"0x{number}"},
            "start_time": f"2026-01-01T00:00:0{number}.000000Z",
            "attributes": {
                key: value for key, value in open_inference(*pair)["attributes"].items() if value is not None
            },
            "events": [],
        }
        for number, pair in enumerate(REQUESTS)
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    (found,) = read(file)
    assert texts(found) == WHOLE


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[{", "an attribute of a span is no JSON"),
        (json.dumps([{"role": "user", "parts": [{"type": "blob", "content": "…"}]}]), "parts that are not text"),
    ],
)
def test_a_broken_request_is_skipped_with_a_reason(value: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    span = conventional(*REQUESTS[1])
    span["attributes"]["gen_ai.input.messages"] = value
    file.write_text(json.dumps(otlp([span])))
    (found,) = read(file)
    assert isinstance(found, Skipped)
    assert reason in found.reason


def test_a_record_of_another_kind_is_broken(tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    file.write_text('{"messages": []}\n')
    (found,) = read(file)
    assert isinstance(found, Skipped)
    assert found.is_broken


def test_names_with_dots_are_nested_and_numbers_are_places() -> None:
    assert nested({"a.1.b": 2, "a.0.b": 1, "c": 3, "c.d": 4}) == {"a": [{"b": 1}, {"b": 2}], "c": {"d": 4}}
    assert nested({f"a{'.a' * 5000}": 1})  # of any depth


class Noted:
    """A span and a trace as MLflow's client has them, as far as they are read."""

    def __init__(self, **values: Any) -> None:
        self.__dict__ |= values

    def get_attribute(self, name: str) -> None:
        return None


def test_a_span_of_mlflow_with_values_of_other_types_ends_nothing() -> None:
    def chat(start: int, messages: Any, said: Any) -> Noted:
        return Noted(span_type="CHAT_MODEL", start_time_ns=start, inputs={"messages": messages}, outputs=said)

    good = chat(2, ASKED, {"choices": [{"message": ANSWER}]})
    odd = chat(1, ASKED, {"choices": [{"message": {"role": "assistant", "tool_calls": {"id": 1}}}]})
    worse = chat(3, [{"role": ["user"], "content": {}}], [{"choices": 1}])
    reader = MlflowTraces(MlflowTraces.Config())
    for spans in ([odd, good, worse], [odd, worse]):
        trace: Any = Noted(data=Noted(spans=spans), info=Noted(trace_id="tr-1", assessments=None, tags={}))
        (found,) = reader._attempts(trace)
        assert isinstance(found, Conversation) is (good in spans)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("[{}]") | st.just('[{"role": "user"}]'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [
        *(
            f"gen_ai.{name}"
            for name in ("input.messages", "output.messages", "tool.definitions", "system_instructions")
        ),
        *(f"gen_ai.{name}" for name in ("prompt.0.content", "prompt.0.tool_calls.0", "completion")),
        *("llm", "llm.input_messages", "llm.input_messages.0", "llm.input_messages.0.message"),
        *("llm.tools.0.tool.json_schema", "llm.request.functions.0"),
    ]
)


@given(st.dictionaries(NAMES, ANY, min_size=1, max_size=4), ANY)
def test_whatever_stands_in_a_span_ends_nothing(values: dict[str, Any], other: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "spans.jsonl")
        good = otlp([conventional(*pair) for pair in REQUESTS], "good")
        bad = otlp([{"attributes": values, "events": [other]}], "bad")
        file.write_text("\n".join(json.dumps(line) for line in (bad, {"resourceSpans": other}, good)))
        found = read(file)
    assert "trace good" in [each.where for each in found if isinstance(each, Conversation)]

"""ToolBench's answers as its inference writes them, and as they are converted for its evaluation."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from steptool.core.messages import GAVE_UP, Message, MessageCall
from steptool.core.types import FINISH, Tool
from steptool.formats.react import ANSWERS, GIVES_UP
from steptool.traces.conversation import Conversation, Unusable
from steptool.traces.labels import Labels
from steptool.traces.openai import arguments_of, json_of, tools
from steptool.traces.records import Record

MOST_LITERAL = 200_000
"""Characters of a value that is written as Python writes it."""
AROUND_QUERY = re.compile(r"\s*(.*?)\s*(?:Begin!)?\s*", re.DOTALL)


def is_inferred(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("answer_generation"), Mapping)


def is_converted(record: Mapping[str, Any]) -> bool:
    answers = [item.get("answer") for item in record.values() if isinstance(item, Mapping)]
    return bool(answers) and all(isinstance(answer, Mapping) and "answer_details" in answer for answer in answers)


def of_inferred(record: Record, labels: Labels) -> Conversation:
    answered = record.value["answer_generation"]
    runs = answered.get("train_messages")
    if not isinstance(runs, list) or not runs or not isinstance(runs[-1], list):
        raise Unusable("it holds no messages", is_broken=True)
    said = [_message_of_call(item) for item in runs[-1] if isinstance(item, Mapping)]
    return Conversation(
        where=record.where,
        messages=tuple(said),
        tools=functions(answered.get("function") or []),
        answer=answer_of(*_ending(answered.get("final_answer"))),
        **labels._asdict(),
    )


def _message_of_call(item: Mapping[str, Any]) -> Message:
    role, text = item.get("role"), item.get("content") or ""
    call = item.get("function_call")
    if role == "assistant" and isinstance(call, Mapping):
        written = str(call.get("arguments") or "{}")
        if call.get("name") == FINISH:
            written = finish(written)
        return Message(
            role="assistant", text=str(text), calls=(MessageCall(name=str(call.get("name")), arguments=written),)
        )
    if role == "function":
        return Message(role="tool", text=str(text), name=str(item.get("name") or ""))
    whole = AROUND_QUERY.fullmatch(str(text))
    if role not in ("system", "user", "assistant"):
        raise Unusable("a message has no role of ToolBench's", is_broken=True)
    return Message(role=role, text=whole[1] if whole and role == "user" else str(text))


def finish(written: str) -> str:
    """The arguments of ToolBench's `Finish` as an Action has them; those that cannot be read stay."""
    answer = answer_of(*_ending(written))
    return written if answer is None else json.dumps({"give_up": True} if answer == GAVE_UP else {"answer": answer})


def _ending(written: Any) -> tuple[Any, Any]:
    """`return_type` and `final_answer` of the arguments of `Finish`; a text that is no JSON is the answer."""
    try:
        value = json.loads(written) if isinstance(written, str) else written
    except (ValueError, RecursionError):
        return (ANSWERS, written) if written else (None, None)
    if isinstance(value, Mapping):
        return value.get("return_type"), value.get("final_answer")
    return (None, None) if value in (None, "") else (ANSWERS, written)


def answer_of(kind: Any, answer: Any) -> str | None:
    """By `return_type` and `final_answer`; None where the attempt did not end."""
    if kind == GIVES_UP:
        return GAVE_UP
    if kind != ANSWERS or answer is None:
        return None
    return json_of(answer)


def of_converted(record: Record, labels: Labels) -> Conversation:
    """The branch of the tree that was tried last; the others were given up."""
    value = record.value
    if not isinstance(value.get("query"), str):
        raise Unusable("it has no query", is_broken=True)
    details = value["answer"]["answer_details"]
    said: list[Message] = []
    while isinstance(details, list) and details:
        node = details[-1]  # what was tried last is what the answer came from
        if not isinstance(node, Mapping):
            raise Unusable("a node of the answer is no object", is_broken=True)
        said += _messages_of_node(node)
        details = node.get("next")
    return Conversation(
        where=record.where,
        messages=(Message(role="user", text=value["query"]), *said),
        tools=functions(value.get("available_tools") or []),
        model=str(value["answer"].get("method") or ""),
        answer=answer_of(*_ending(value["answer"].get("final_answer"))),
        **labels._asdict(),
    )


def _messages_of_node(node: Mapping[str, Any]) -> Iterator[Message]:
    role, said = node.get("role"), node.get("message")
    if role == "assistant" and isinstance(said, str) and said.strip():
        yield Message(role="assistant", text=said)
    if role != "tool":
        return
    call = said if isinstance(said, Mapping) else _literal(said)
    name = call.get("name")
    if name == FINISH:
        return
    written = arguments_of(call.get("arguments"))
    yield Message(role="assistant", calls=(MessageCall(name=str(name), arguments=written),))
    yield Message(role="tool", text=json_of(call.get("response", "")))


def _literal(said: Any) -> Mapping[str, Any]:
    try:
        value = json.loads(said)
    except (ValueError, TypeError, RecursionError):
        try:
            value = ast.literal_eval(str(said)[:MOST_LITERAL])
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
            raise Unusable("a call of a tool cannot be read", is_broken=True) from error
    if not isinstance(value, Mapping):
        raise Unusable("a call of a tool cannot be read", is_broken=True)
    return value


def functions(listed: Iterable[Any]) -> tuple[Tool, ...]:
    """The functions that were offered, without `Finish`. Raises Unusable for what is none."""
    found = tools({"functions": [_function(api) for api in listed if isinstance(api, Mapping)]})
    return tuple(tool for tool in found if tool.name != FINISH)


def _function(api: Mapping[str, Any]) -> dict[str, Any]:
    """`optional`, which ToolBench puts beside `required`, is no word of JSON schema."""
    schema = {key: value for key, value in dict(api.get("parameters") or {}).items() if key != "optional"}
    properties = {name: _lower_type(part) for name, part in dict(schema.get("properties") or {}).items()}
    return {**api, "parameters": {"type": "object", **schema, "properties": properties}}


def _lower_type(part: Any) -> Any:
    if isinstance(part, Mapping) and isinstance(part.get("type"), str):
        return {**part, "type": part["type"].lower()}
    return part

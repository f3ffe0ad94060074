"""ToolBench's answers, in the forms in which they are published.

    {"answer_generation": {"train_messages": […], "function": […], …}}     what its inference writes, one file a query
    {"7": {"query": …, "available_tools": […], "answer": {…}}, …}          converted for its evaluation
    {"conversations": [{"from": "system", "value": …}, …]}                 its training files, in Thought, Action, Input
    {"query_id": …, "steps": […], "return_type": …, "final_answer": …}     judged runs; another file has their queries

`Finish` with `give_answer` is the answer, `give_up_and_restart` gives up. Training files hold an attempt once for each
of its steps; the longest is kept (`merging`).
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from steptool.core.errors import InputError
from steptool.core.fields import Text
from steptool.core.messages import GAVE_UP, Message, MessageCall
from steptool.core.types import FINISH, Task, Tool
from steptool.formats.react import ANSWERS, GIVES_UP, React
from steptool.traces.conversation import Conversation, Skipped, Unusable
from steptool.traces.labels import Labels, RecordSettings, labels_of
from steptool.traces.openai import tools
from steptool.traces.records import Record, read_each
from steptool.worlds.recorded import QUERIES, requests

_APIS = re.compile(r"you have access to the following APIs: (\[.*\])\s*\Z", re.DOTALL)
_MOST_APIS = 200_000
"""Characters of the list of functions in a prompt."""
_AROUND_QUERY = re.compile(r"\s*(.*?)\s*(?:Begin!)?\s*", re.DOTALL)
_ACTION = re.compile(r"^Action:[ \t]*(\S*)[ \t]*\r?\nAction Input:\s*(.*)", re.DOTALL | re.MULTILINE)
_NO_ERROR = ("", "none")
Queries = Callable[[], Mapping[str, Task]]
"""Tasks by id, read where the first run needs them."""


class ToolBench:
    name: ClassVar[str] = "toolbench"

    class Config(RecordSettings):
        queries: Text = ""
        """File of the queries of judged runs; by default queries.jsonl.gz in the folder of the source or above it."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @staticmethod
    def recognises(source: str, record: Any) -> bool:
        return isinstance(record, Mapping) and any(
            fits(record) for fits in (_is_inferred, _is_converted, _is_run, _is_text)
        )

    def read(self, source: str) -> Iterator[Conversation | Skipped]:
        queries = cache(lambda: {task.id: task for task in requests(self._queries(source))})
        return read_each(source, lambda record: self._conversations(record, queries))

    def _queries(self, source: str) -> Path:
        if self.config.queries:
            return Path(self.config.queries)
        near = [folder / QUERIES for folder in list(Path(source).resolve().parents)[:2]]
        found = next((file for file in near if file.is_file()), None)
        if found is None:
            fix = f"name the file with --set queries=…/{QUERIES}"
            raise InputError("these runs need the file of their queries", where=source, fix=fix)
        return found

    def _conversations(self, record: Record, queries: Queries) -> Iterator[Conversation | Skipped]:
        value = record.value
        if not self.recognises("", value):
            raise Unusable("no answer of ToolBench in any of its forms", is_broken=True)
        if _is_run(value):
            yield self._of_run(record, queries())
        elif _is_inferred(value):
            yield _of_inferred(record, labels_of(value, self.config))
        elif _is_text(value):
            yield _of_text(record, labels_of(value, self.config))
        else:
            for id, answered in value.items():
                part = Record(f"{record.where}, query {id}", answered)
                try:
                    yield _of_converted(part, labels_of(answered, self.config))
                except Unusable as error:
                    yield Skipped(where=part.where, reason=error.reason, is_broken=error.is_broken)

    def _of_run(self, record: Record, queries: Mapping[str, Task]) -> Conversation:
        value = record.value
        task = queries.get(str(value["query_id"]))
        if task is None:
            raise Unusable("its query is not in the file of queries")
        labels = labels_of(value, self.config)
        said = [Message(role="user", text=task.query), *_steps_of_run(value["steps"])]
        return Conversation(
            where=record.where,
            messages=tuple(said),
            tools=task.tools,
            model=str(value.get("run") or ""),
            answer=_answer(value.get("return_type"), value.get("final_answer")),
            **(labels if labels.group else labels._replace(group=task.group))._asdict(),
        )


def _is_inferred(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("answer_generation"), Mapping)


def _is_converted(record: Mapping[str, Any]) -> bool:
    answers = [item.get("answer") for item in record.values() if isinstance(item, Mapping)]
    return bool(answers) and all(isinstance(answer, Mapping) and "answer_details" in answer for answer in answers)


def _is_run(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("steps"), list) and {"query_id", "return_type", "final_answer"} <= record.keys()


def _is_text(record: Mapping[str, Any]) -> bool:
    said = [text for role, text in _turns(record) if role == "assistant"]
    return bool(said) and all("Action:" in text and "Action Input:" in text for text in said)


def _turns(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Role and text of each message of a training file."""
    written = record.get("conversations") or record.get("messages")
    if not isinstance(written, list) or not all(isinstance(item, Mapping) for item in written):
        return []
    pairs = [(item.get("from", item.get("role")), item.get("value", item.get("content"))) for item in written]
    return [(str(role), str(text)) for role, text in pairs if isinstance(text, str)]


def _of_text(record: Record, labels: Labels) -> Conversation:
    turns = _turns(record.value)
    prompt = next((text for role, text in turns if role == "system"), "")
    return Conversation(
        where=record.where,
        messages=tuple(_message_of_text(role, text) for role, text in turns),
        tools=_apis(prompt),
        **labels._asdict(),
    )


def _message_of_text(role: str, text: str) -> Message:
    if role in ("function", "tool"):
        return Message(role="tool", text=text)
    if role == "assistant":
        return _message_of_action(text)
    if role not in ("system", "user"):
        raise Unusable("a message has no role of ToolBench's", is_broken=True)
    whole = _AROUND_QUERY.fullmatch(text)
    return Message(role="user" if role == "user" else "system", text=whole[1] if whole and role == "user" else text)


def _message_of_action(text: str) -> Message:
    """A call as it was written, also where it cannot be read."""
    action = React.read(text)
    if action.calls:
        call = action.calls[0]
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        return Message(role="assistant", text=action.thought, calls=(MessageCall(name=call.name, arguments=arguments),))
    found = _ACTION.search(text)
    name, arguments = (found[1], found[2]) if found else ("", text.strip())
    thought = text[: found.start()].strip().removeprefix("Thought:").strip() if found else ""
    return Message(role="assistant", text=thought, calls=(MessageCall(name=name, arguments=arguments),))


def _apis(prompt: str) -> tuple[Tool, ...]:
    """The functions that a prompt lists, as Python writes them; none where it does not."""
    found = _APIS.search(prompt)
    if not found or len(found[1]) > _MOST_APIS:
        return ()
    try:
        listed = ast.literal_eval(found[1])
        return tuple(_without_finish(tools({"functions": list(map(_function, listed))})))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, Unusable):
        return ()


def _function(api: Mapping[str, Any]) -> dict[str, Any]:
    """`optional`, which ToolBench puts beside `required`, is no word of JSON schema."""
    schema = {key: value for key, value in dict(api.get("parameters") or {}).items() if key != "optional"}
    properties = {name: _lower_type(part) for name, part in dict(schema.get("properties") or {}).items()}
    return {**api, "parameters": {"type": "object", **schema, "properties": properties}}


def _lower_type(part: Any) -> Any:
    if isinstance(part, Mapping) and isinstance(part.get("type"), str):
        return {**part, "type": part["type"].lower()}
    return part


def _without_finish(offered: Sequence[Tool]) -> Iterator[Tool]:
    return (tool for tool in offered if tool.name != FINISH)


def _of_inferred(record: Record, labels: Labels) -> Conversation:
    answered = record.value["answer_generation"]
    runs = answered.get("train_messages")
    if not isinstance(runs, list) or not runs or not isinstance(runs[-1], list):
        raise Unusable("it holds no messages", is_broken=True)
    said = [_message_of_call(item) for item in runs[-1] if isinstance(item, Mapping)]
    offered = [_function(item) for item in answered.get("function") or [] if isinstance(item, Mapping)]
    return Conversation(
        where=record.where,
        messages=tuple(said),
        tools=tuple(_without_finish(tools({"functions": offered}))),
        answer=_answer(*_ending(answered.get("final_answer"))),
        **labels._asdict(),
    )


def _message_of_call(item: Mapping[str, Any]) -> Message:
    role, text = item.get("role"), item.get("content") or ""
    call = item.get("function_call")
    if role == "assistant" and isinstance(call, Mapping):
        written = str(call.get("arguments") or "{}")
        if call.get("name") == FINISH:
            written = _finish(written)
        return Message(
            role="assistant", text=str(text), calls=(MessageCall(name=str(call.get("name")), arguments=written),)
        )
    if role == "function":
        return Message(role="tool", text=str(text), name=str(item.get("name") or ""))
    whole = _AROUND_QUERY.fullmatch(str(text))
    if role not in ("system", "user", "assistant"):
        raise Unusable("a message has no role of ToolBench's", is_broken=True)
    return Message(role=role, text=whole[1] if whole and role == "user" else str(text))


def _finish(written: str) -> str:
    answer = _answer(*_ending(written))
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


def _answer(kind: Any, answer: Any) -> str | None:
    if kind == GIVES_UP:
        return GAVE_UP
    if kind != ANSWERS or answer is None:
        return None
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def _of_converted(record: Record, labels: Labels) -> Conversation:
    """The first branch of the tree; the others were given up."""
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
    offered = [_function(item) for item in value.get("available_tools") or [] if isinstance(item, Mapping)]
    return Conversation(
        where=record.where,
        messages=(Message(role="user", text=value["query"]), *said),
        tools=tuple(_without_finish(tools({"functions": offered}))),
        model=str(value["answer"].get("method") or ""),
        answer=_answer(*_ending(value["answer"].get("final_answer"))),
        **labels._asdict(),
    )


def _messages_of_node(node: Mapping[str, Any]) -> Iterator[Message]:
    role, said = node.get("role"), node.get("message")
    if role == "assistant" and isinstance(said, str) and said.strip():
        yield Message(role="assistant", text=said)
    if role != "tool":
        return
    call = said if isinstance(said, Mapping) else _literal(said)
    name, arguments = call.get("name"), call.get("arguments")
    if name == FINISH:
        return
    written = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
    reply = call.get("response", "")
    yield Message(role="assistant", calls=(MessageCall(name=str(name), arguments=written),))
    yield Message(role="tool", text=reply if isinstance(reply, str) else json.dumps(reply, ensure_ascii=False))


def _literal(said: Any) -> Mapping[str, Any]:
    try:
        value = json.loads(said)
    except (ValueError, TypeError, RecursionError):
        try:
            value = ast.literal_eval(str(said)[:_MOST_APIS])
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
            raise Unusable("a call of a tool cannot be read", is_broken=True) from error
    if not isinstance(value, Mapping):
        raise Unusable("a call of a tool cannot be read", is_broken=True)
    return value


def _steps_of_run(steps: Sequence[Any]) -> Iterator[Message]:
    for step in steps:
        if not isinstance(step, Mapping) or not isinstance(step.get("name"), str):
            raise Unusable("a step names no function", is_broken=True)
        arguments, reply = step.get("arguments"), step.get("response")
        written = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
        error = str(step.get("error") or "")
        written = _finish(written) if step["name"] == FINISH else written
        yield Message(role="assistant", calls=(MessageCall(name=step["name"], arguments=written),))
        yield Message(
            role="tool",
            text=reply if isinstance(reply, str) else json.dumps(reply, ensure_ascii=False),
            error=None if error in _NO_ERROR else error,
        )

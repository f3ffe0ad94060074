"""ToolBench's answers, in the forms in which they are published.

    {"answer_generation": {"train_messages": […], "function": […], …}}     what its inference writes, one file a query
    {"7": {"query": …, "available_tools": […], "answer": {…}}, …}          converted for its evaluation
    {"conversations": [{"from": "system", "value": …}, …]}                 its training files, in Thought, Action, Input
    {"query_id": …, "steps": […], "return_type": …, "final_answer": …}     judged runs; another file has their queries

`Finish` with `give_answer` is the answer, `give_up_and_restart` gives up. Training files hold an attempt once for each
of its steps; the longest is kept (`merging`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from steptool.core.errors import InputError
from steptool.core.fields import Text
from steptool.core.messages import Message, MessageCall
from steptool.core.types import FINISH, Task
from steptool.traces.conversation import Conversation, Skipped, Unusable
from steptool.traces.labels import RecordSettings, labels_of
from steptool.traces.openai import arguments_of, json_of
from steptool.traces.records import Record, read_each
from steptool.traces.toolbench_answers import answer_of, finish, is_converted, is_inferred, of_converted, of_inferred
from steptool.traces.toolbench_text import is_text, of_text
from steptool.worlds.toolbench.pack import QUERIES, requests

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
            fits(record) for fits in (is_inferred, is_converted, _is_run, is_text)
        )

    def read(self, source: str) -> Iterator[Conversation | Skipped]:
        queries = cache(lambda: {request.id: request.task for request in requests(self._queries(source))})
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
        elif is_inferred(value):
            yield of_inferred(record, labels_of(value, self.config))
        elif is_text(value):
            yield of_text(record, labels_of(value, self.config))
        else:
            for id, answered in value.items():
                part = Record(f"{record.where}, query {id}", answered)
                try:
                    yield of_converted(part, labels_of(answered, self.config))
                except Unusable as error:
                    yield Skipped(where=part.where, reason=error.reason, is_broken=error.is_broken)

    def _of_run(self, record: Record, queries: Mapping[str, Task]) -> Conversation:
        value = record.value
        task = queries.get(str(value["query_id"]))
        if task is None:
            raise Unusable("its query is not in the file of queries")
        labels = labels_of(value, self.config)
        said = [Message(role="user", text=task.query), *_steps_of_run(value["steps"])]
        ended = any(step["name"] == FINISH for step in value["steps"])  # else nobody was given an answer
        return Conversation(
            where=record.where,
            messages=tuple(said),
            tools=task.tools,
            model=str(value.get("run") or ""),
            answer=answer_of(value.get("return_type"), value.get("final_answer")) if ended else None,
            **(labels if labels.group else labels._replace(group=task.group))._asdict(),
        )


def _is_run(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("steps"), list) and {"query_id", "return_type", "final_answer"} <= record.keys()


def _steps_of_run(steps: Sequence[Any]) -> Iterator[Message]:
    for step in steps:
        if not isinstance(step, Mapping) or not isinstance(step.get("name"), str):
            raise Unusable("a step names no function", is_broken=True)
        written = arguments_of(step.get("arguments"))
        error = str(step.get("error") or "")
        written = finish(written) if step["name"] == FINISH else written
        yield Message(role="assistant", calls=(MessageCall(name=step["name"], arguments=written),))
        yield Message(
            role="tool",
            text=json_of(step.get("response")),
            error=None if error in _NO_ERROR else error,
        )

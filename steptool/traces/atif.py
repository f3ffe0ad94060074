"""ATIF, the exchange format of trajectories (package `atif`): one document a trajectory.

    user step                 the query, or the user's next message
    agent step                its calls with the text as the thought, or a message
    observation of the step   the reply to each call; `extra.error` marks a failure
    system step               how the agent was told to behave

Tools stand in `agent.tool_definitions`, where the source has them. Steps that were copied from another trajectory are
left out, as the format asks. Sub-agents are conversations of their own, counted as such.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError

from steptool.core.messages import Message, MessageCall
from steptool.traces.conversation import Conversation, Skipped, Unusable
from steptool.traces.labels import RecordSettings, labels_of
from steptool.traces.openai import tools
from steptool.traces.records import Record, read_each

if TYPE_CHECKING:
    from atif import Step, Trajectory


class Atif:
    name: ClassVar[str] = "atif"

    class Config(RecordSettings):
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    @staticmethod
    def recognises(source: str, record: Any) -> bool:
        version = record.get("schema_version") if isinstance(record, Mapping) else None
        return isinstance(version, str) and version.startswith("ATIF")

    def read(self, source: str) -> Iterator[Conversation | Skipped]:
        return read_each(source, self._read)

    def _read(self, record: Record) -> Iterator[Conversation | Skipped]:
        from atif import Trajectory

        try:
            whole = Trajectory.model_validate(record.value)
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            raise Unusable(f"no trajectory of ATIF: {place}", is_broken=True) from error
        yield from self._conversations(record, whole)

    def _conversations(self, record: Record, of: Trajectory) -> Iterator[Conversation | Skipped]:
        try:
            extra = {"extra": of.extra or {}, **(of.extra or {})}
            yield Conversation(
                where=record.where,
                messages=tuple(message for step in of.steps for message in _messages(step)),
                tools=tools({"tools": of.agent.tool_definitions or []}),
                model=of.agent.model_name or of.agent.name,
                **labels_of(extra, self.config)._asdict(),
            )
        except Unusable as error:
            yield Skipped(where=record.where, reason=error.reason, is_broken=error.is_broken)
        for inner in of.subagent_trajectories or ():
            yield from self._conversations(record._replace(where=f"{record.where}, {inner.trajectory_id}"), inner)


def _messages(step: Step) -> Iterator[Message]:
    if step.is_copied_context:
        return
    text = _text(step.message)
    if step.source != "agent":
        yield Message(role=step.source, text=text)
        return
    calls = tuple(
        MessageCall(id=call.tool_call_id, name=call.function_name, arguments=json.dumps(call.arguments))
        for call in step.tool_calls or ()
    )
    yield Message(role="assistant", text=text, calls=calls, thought=step.reasoning_content or "")
    results = step.observation.results if step.observation else ()
    if results and not calls:
        raise Unusable("an observation follows no call of a tool")
    for result in results:
        if result.subagent_trajectory_ref and result.content is None:
            raise Unusable("a call is answered by a sub-agent alone")
        error = (result.extra or {}).get("error")
        yield Message(
            role="tool",
            text=_text(result.content),
            call_id=result.source_call_id or "",
            error=error if isinstance(error, str) and error else None,
        )


def _text(content: Any) -> str:
    if isinstance(content, str) or content is None:
        return content or ""
    if any(part.type != "text" for part in content):
        raise Unusable("a message holds parts that are not text")
    return "\n".join(part.text or "" for part in content)

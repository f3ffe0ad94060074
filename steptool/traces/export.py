"""`steptool traces export`: trajectories of any stage as OpenAI JSONL or ATIF, a line each.

    openai    {"messages": […], "tools": […], "model": …, "solved": …}     what fine-tuning takes, and what import reads
    atif      a trajectory of ATIF; the task, the group and the outcome are in its `extra`

What cannot be written is left out and counted: an attempt whose task is not known, or that broke.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from steptool import __version__
from steptool.core.errors import InputError, StorageError
from steptool.core.messages import Message, openai_message
from steptool.core.types import Task, Trajectory
from steptool.formats.tool_text import openai_tools
from steptool.traces import stored
from steptool.traces.steps import messages_of

FORMS = ("openai", "atif")
ATIF_VERSION = "ATIF-v1.7"


def export(source: Path, form: str, out: Path, tasks: Path | None = None) -> Counter[str]:
    """Write the trajectories of a file or folder of any stage; how many were written, and left out by reason.

    `tasks`: folder of their tasks, where it is not that of the project. The file has its name only once it is whole.
    Raises InputError for another form, a file that is there already, and a source without trajectories.
    """
    if form not in FORMS:
        raise InputError(f"no form is called {form[:40]!r}", where="--to", fix=f"use one of {', '.join(FORMS)}")
    if out.exists():
        raise InputError("is there already", where=str(out), fix="name another file, or move it away")
    counts: Counter[str] = Counter()
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for record in _records(source, form, tasks, counts):
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        temporary.replace(out)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        fix = "make its folder, or free some space, then run the same command again"
        raise StorageError(f"cannot be written: {error.strerror}", where=str(out), fix=fix) from error
    finally:
        temporary.unlink(missing_ok=True)
    return counts


def _records(source: Path, form: str, tasks: Path | None, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    write = openai_record if form == "openai" else atif_record
    for task, done in stored.read(source, tasks):
        reason = "its task is not known" if task is None else done.stop_reason.value if done.stop_reason.broken else ""
        if task is None or reason:
            counts[f"left out: {reason}"] += 1
            continue
        counts["written"] += 1
        yield write(task, done)


def openai_record(task: Task, done: Trajectory) -> dict[str, Any]:
    """A record of chat completions, the label beside it where the outcome is known."""
    record: dict[str, Any] = {
        "messages": list(map(_message, messages_of(task.query, done.steps))),
        "tools": openai_tools(task.tools),
        "model": done.policy.name,
        "group": task.group,
    }
    return record if done.outcome.solved is None else {**record, "solved": done.outcome.solved}


def _message(message: Message) -> dict[str, Any]:
    return openai_message(message) | ({"reasoning_content": message.thought} if message.thought else {})


def atif_record(task: Task, done: Trajectory) -> dict[str, Any]:
    """A trajectory of ATIF, checked by its package."""
    from atif import Agent
    from atif import Trajectory as Atif

    extra: dict[str, Any] = {
        "task_id": task.id,
        "group": task.group,
        "stop_reason": done.stop_reason.value,
        "attempt": done.attempt,
    }
    if done.outcome.solved is not None:
        extra |= {"solved": done.outcome.solved, "evidence": done.outcome.evidence}
    tools = openai_tools(task.tools)
    agent = Agent(name="steptool", version=__version__, model_name=done.policy.name, tool_definitions=tools)
    written = Atif(
        schema_version=ATIF_VERSION,
        trajectory_id=done.id,
        agent=agent,
        steps=_atif_steps(messages_of(task.query, done.steps)),
        extra=extra,
    )
    return written.to_json_dict()


def _atif_steps(messages: list[Message]) -> list[Any]:
    from atif import Observation, ObservationResult, Step, ToolCall

    steps: list[Step] = []
    numbers = count(1)
    for message in messages:
        if message.role == "tool":
            result = ObservationResult(
                source_call_id=message.call_id,
                content=message.text,
                extra={"error": message.error} if message.error else None,
            )
            earlier = steps[-1].observation.results if steps[-1].observation else []
            steps[-1] = steps[-1].model_copy(update={"observation": Observation(results=[*earlier, result])})
            continue
        calls = [
            ToolCall(tool_call_id=call.id, function_name=call.name, arguments=json.loads(call.arguments))
            for call in message.calls
        ]
        steps.append(
            Step(
                step_id=next(numbers),
                source="agent" if message.role == "assistant" else "user",
                message=message.text,
                reasoning_content=message.thought or None,
                tool_calls=calls or None,
            )
        )
    return steps

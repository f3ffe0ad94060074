"""Trajectories in a line: each step is (tool, arguments, reply), a reply starting with `!` is an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from steptool.core.types import (
    FINISH,
    Observation,
    Revision,
    Sampling,
    Step,
    StopReason,
    Task,
    Tool,
    ToolCall,
    Trajectory,
)


def make_task(query: str, *, relevant: tuple[str, ...] = ()) -> Task:
    """Offers find(name) -> id, get(id) -> details, list(), and note(text)."""
    parameters = {"find": "name", "get": "id", "list": "", "note": "text"}
    tools = tuple(
        Tool(
            name=name,
            description="",
            parameters={
                "type": "object",
                "properties": {argument: {"type": "string"}, "limit": {"type": "integer"}} if argument else {},
                "required": [argument] if argument else [],
            },
        )
        for name, argument in parameters.items()
    )
    return Task(id="t1", subset="G1_instruction", query=query, tools=tools, relevant_tools=relevant)


def make_trajectory(
    *calls: tuple[str | None, dict[str, Any], Any], answer: str | None = None, stop: StopReason | None = None
) -> Trajectory:
    """`answer` appends Finish; without it and without `stop` the call budget ran out. Tool None is a parse error."""
    steps = [
        Step(
            call=None if name is None else ToolCall(name=name, arguments=arguments),
            parse_error="no call" if name is None else None,
            observation=_observation(reply),
        )
        for name, arguments, reply in calls
    ]
    if answer is not None:
        steps.append(Step(call=ToolCall(name=FINISH, arguments={"answer": answer})))
        stop = stop or StopReason.finished
    if stop is StopReason.gave_up:
        steps.append(Step(call=ToolCall(name=FINISH, arguments={"give_up": True})))
    return Trajectory.create(
        task_id="t1",
        subset="G1_instruction",
        steps=tuple(steps),
        stop_reason=stop or StopReason.call_budget,
        answer=answer,
        policy=Revision(name="p", revision="1"),
        world=Revision(name="w", revision="1"),
        sampling=Sampling(temperature=1, top_p=1, max_calls=8, max_step_tokens=64, max_tokens=1024),
        seed=0,
    )


def _observation(reply: Any) -> Observation:
    if isinstance(reply, str) and reply.startswith("!"):
        return Observation(text=json.dumps({"error": reply[1:]}), error=reply[1:])
    return Observation(text=reply if isinstance(reply, str) else json.dumps(reply))


@pytest.fixture(scope="session")
def task() -> Callable[..., Task]:
    return make_task


@pytest.fixture(scope="session")
def trajectory() -> Callable[..., Trajectory]:
    return make_trajectory

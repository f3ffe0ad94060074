"""Trajectories in a line: each step is (tool, arguments, reply), a reply starting with `!` is an error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from steptool import testing
from steptool.annotators.rules import Rules
from steptool.core.plugins import revision_of
from steptool.core.types import Outcome, ScoredTrajectory, Step, StopReason, Task, ToolCall, Trajectory
from steptool.testing import finish, give_up, step, tool, unreadable


def make_task(query: str) -> Task:
    """Offers find(name) -> id, get(id) -> details, list(), and note(text)."""
    arguments = {"find": "name", "get": "id", "note": "text"}
    tools = [tool(name, needs={needed: "string"}, allows={"limit": "integer"}) for name, needed in arguments.items()]
    return testing.task("t1", query, *tools, tool("list"))


def make_trajectory(
    *calls: tuple[str | None, dict[str, Any], Any],
    answer: str | None = None,
    stop: StopReason | None = None,
) -> Trajectory:
    """`answer` appends Finish; without it and without `stop` the call budget ran out. Tool None cannot be read."""
    steps = [_step(*call) for call in calls]
    if answer is not None:
        steps.append(finish(answer))
    if stop is StopReason.gave_up:
        steps.append(give_up())
    return testing.trajectory(*steps, stop=stop)


def _step(name: str | None, arguments: dict[str, Any], reply: Any) -> Step:
    action = unreadable("no call") if name is None else ToolCall(name=name, arguments=arguments)
    if isinstance(reply, str) and reply.startswith("!"):
        return step(action, error=reply[1:])
    return step(action, reply)


def annotated(
    trajectory: Trajectory,
    task: Task,
    solved: float | None,
    relevant: tuple[str, ...] = (),
    *,
    rules: Rules = Rules(Rules.Config()),
) -> ScoredTrajectory:
    """What the rules say of a trajectory whose session gave the verdict `solved`."""
    fields = dict(trajectory) | {"outcome": Outcome(solved=solved)}
    del fields["id"]
    checked = Trajectory.create(**fields)
    judgements = asyncio.run(rules.annotate(checked, task, testing.reference(task, relevant=relevant)))
    return ScoredTrajectory(trajectory=checked, judgements=tuple(judgements), annotator=revision_of(rules))


@pytest.fixture(scope="session")
def task() -> Callable[..., Task]:
    return make_task


@pytest.fixture(scope="session")
def trajectory() -> Callable[..., Trajectory]:
    return make_trajectory

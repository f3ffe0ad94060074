"""A team's own agent against a model behind an endpoint: it asks our gateway, which asks the endpoint, and is recorded.

agent ── chat.completions ──► gateway ──► Endpoint ──► the vendor
  └ its own tools                └ steps, budget, ledger
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from openai import APIError, AsyncOpenAI

from steptool import testing
from steptool.core.types import Observation, Outcome, StopReason, Task, ToolCall, Trajectory
from steptool.endpoints.budget import CeilingReached
from steptool.endpoints.policy import Endpoint
from steptool.endpoints.settings import EndpointSettings
from steptool.rollouts.agent import Agent
from steptool.traces.endpoint import demonstration_of
from steptool.worlds.base import AgentFailed
from tests.endpoints.fake import Answer, Fake, Fault, fake, says

TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}]
TASK = testing.task("t1", "Where is order a-1?", testing.tool("find"))


class Session:
    """An agent in its plainest form."""

    def __init__(self, task: Task, history: Sequence[dict[str, Any]]) -> None:
        self.task, self.history = task, history
        self.calls: list[tuple[ToolCall, Observation]] = []

    async def run(self, base_url: str, key: str) -> str | None:
        try:
            return await self._loop(base_url, key)
        except APIError as error:
            raise AgentFailed(str(error)) from error

    async def _loop(self, base_url: str, key: str) -> str | None:
        client = AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0)
        messages: list[Any] = [*self.history, {"role": "user", "content": self.task.query}]
        for _ in range(10):
            made = await client.chat.completions.create(model="any", messages=messages, tools=TOOLS)  # type: ignore
            message = made.choices[0].message
            messages.append(message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}))
            if not message.tool_calls:
                return None
            for call in message.tool_calls:
                given = json.loads(call.function.arguments)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps({"found": given})})
        return None

    def saw(self, calls: Sequence[tuple[ToolCall, Observation]]) -> None:
        self.calls = list(calls)

    async def call(self, call: ToolCall) -> Observation:
        raise AssertionError("it calls its tools itself")

    async def say(self, message: str) -> str | None:
        return None

    async def close(self, answer: str | None) -> Outcome:
        return Outcome(solved=float(answer == "shipped" and len(self.calls) == 1))


class World:
    search = "agent"

    def __init__(self, *history: dict[str, Any]) -> None:
        self.history = history

    def open(self, task: Task, seed: int) -> Session:
        return Session(task, self.history)


def looks_and_answers(request: dict[str, Any]) -> Answer:
    return says("shipped") if request["messages"][-1]["role"] == "tool" else says(calls=[("find", {"id": "a-1"})])


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    monkeypatch.chdir(tmp_path)
    with fake(looks_and_answers) as served:
        yield served


def attempt(endpoint: Fake, *history: dict[str, Any], attempts: int = 1, **more: Any) -> list[Trajectory]:
    settings = EndpointSettings.model_validate({"url": endpoint.url, "model": "gpt-x", "max_retries": 0, **more})
    nothing, search = testing.revision("here"), Agent(Agent.Config())
    world: Any = World(*history)
    policy = Endpoint(
        settings, world, search, world_revision=nothing, search_revision=nothing, tool_timeout_s=10.0
    )  # fmt: skip
    try:
        return policy.attempted([TASK], testing.SAMPLING.model_copy(update={"max_calls": 3}), attempts, what="try")
    finally:
        policy.close()
        search.end()


def test_what_an_agent_does_with_a_vendors_model_is_an_attempt(endpoint: Fake) -> None:
    (made,) = attempt(endpoint, {"role": "system", "content": "You work in a shop."})
    assert (made.stop_reason, made.answer, made.outcome.solved) == (StopReason.finished, "shipped", 1.0)
    assert [step.action.calls for step in made.steps] == [(ToolCall(name="find", arguments={"id": "a-1"}),), ()]
    assert made.steps[0].observations == (Observation(text='{"found": {"id": "a-1"}}'),)
    assert made.token_ids == (), "there are none to learn from"
    assert [message["role"] for message in endpoint.requests[1]["messages"]] == ["system", "user", "assistant", "tool"]
    assert endpoint.requests[0]["tools"][0]["function"]["name"] == "find"
    assert demonstration_of(made, is_parallel=True).steps[-1] == testing.finish("shipped")


def test_the_budget_of_actions_is_ours(endpoint: Fake) -> None:
    endpoint.act = lambda request: says(calls=[("find", {"n": len(request["messages"])})])
    (made,) = attempt(endpoint)
    assert (made.stop_reason, len(made.steps), len(endpoint.requests)) == (StopReason.call_budget, 3, 3)


def test_an_endpoint_that_fails_ends_the_attempt(endpoint: Fake) -> None:
    endpoint.act = lambda _: Fault(503)
    (made,) = attempt(endpoint)
    assert made.stop_reason is StopReason.engine_error
    assert "503" in (made.error or "")


def test_a_ceiling_ends_the_command(endpoint: Fake) -> None:
    with pytest.raises(CeilingReached):
        attempt(endpoint, ceiling_tokens=100)
    assert not endpoint.requests

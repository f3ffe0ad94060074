"""Agents in this process that ask through a real gateway, and whatever answers them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from openai import APIStatusError, AsyncOpenAI

from steptool.core.types import Observation, Outcome, Sampling, Task, ToolCall, Trajectory
from steptool.formats.tool_text import openai_tools
from steptool.rollouts.agent import Agent
from steptool.testing import task, tool
from steptool.worlds.base import AgentFailed
from tests.rollouts.attempts import CHAT, SAMPLING, attempt_of

FIND = tool("find_order", "Finds an order.", needs={"id": "string"})
TASK = task("t1", "Where is order a-1?", FIND, tool("ping"))
TOOLS = openai_tools(TASK.tools)

Program = Callable[[AsyncOpenAI], Awaitable[str | None]]


class Session:
    """An agent's session: `program` is what it runs."""

    def __init__(self, program: Program, outcome: Outcome | Exception = Outcome(solved=1.0)) -> None:
        self.program, self.outcome = program, outcome
        self.closed: list[str | None] = []
        self.seen: list[tuple[ToolCall, Observation]] = []
        self.was_cancelled = False
        self.base_url = self.key = ""

    async def run(self, base_url: str, key: str) -> str | None:
        self.base_url, self.key = base_url, key
        async with AsyncOpenAI(base_url=base_url, api_key=key) as client:
            try:
                return await self.program(client)
            except APIStatusError as refused:  # an agent that does not handle it ends in a traceback
                raise AgentFailed(str(refused)) from refused
            except asyncio.CancelledError:
                self.was_cancelled = True
                raise

    def saw(self, calls: Sequence[tuple[ToolCall, Observation]]) -> None:
        self.seen = list(calls)

    async def call(self, call: ToolCall) -> Observation:
        raise NotImplementedError

    async def say(self, message: str) -> str | None:
        raise NotImplementedError

    async def close(self, answer: str | None) -> Outcome:
        self.closed.append(answer)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


MUMBLE = (*CHAT.turns.encode_action("Well, now."), CHAT.end_of_turn)
SHIPPED = '{"state": "shipped"}'


@contextmanager
def running() -> Iterator[Agent]:
    agent = Agent(Agent.Config())
    try:
        yield agent
    finally:
        agent.end()


async def job(
    agent: Agent, engine: Any, session: Any, *, sampling: Sampling = SAMPLING, format: Any = CHAT, of: Task = TASK,
    number: int = 0,
) -> Sequence[Trajectory]:  # fmt: skip
    return await agent.attempt(attempt_of(of, engine, session, sampling=sampling, format=format, number=number))


def attempt(engine: Any, session: Any, **options: Any) -> Sequence[Trajectory]:
    with running() as agent:
        return asyncio.run(job(agent, engine, session, **options))


async def ask(client: AsyncOpenAI, messages: list[Any], tools: Any = TOOLS, **options: Any) -> Any:
    """The message of the reply, appended to `messages`."""
    made = await client.chat.completions.create(model="policy", messages=messages, tools=tools, **options)
    message = made.choices[0].message
    messages.append(message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}))
    return message


async def loop(client: AsyncOpenAI, query: str = TASK.query, reply: str = SHIPPED) -> str | None:
    """What any agent does: tools until there is an answer."""
    messages: list[Any] = [{"role": "user", "content": query}]
    while True:
        message = await ask(client, messages)
        if not message.tool_calls:
            return None
        for made in message.tool_calls:
            json.loads(made.function.arguments)
            messages.append({"role": "tool", "tool_call_id": made.id, "content": reply})

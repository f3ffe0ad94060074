"""The same with the OpenAI Agents SDK and its default settings, which ask for /v1/responses."""

from __future__ import annotations

import desk
from agents import Agent, Runner, function_tool

agent = Agent(
    name="Travel desk",
    instructions="You answer questions about trains.",
    tools=[function_tool(tool) for tool in desk.TOOLS.values()],
)


async def run(query: str) -> str:
    result = await Runner.run(agent, query)
    return str(result.final_output)

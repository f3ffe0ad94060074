"""A plain OpenAI client that works on the tasks of a world: what any agent does with the server, in thirty lines.

    messages ─ server ─ tool_calls ─ session.call ─ a `tool` message ─ server ─ … ─ content: the answer

It knows nothing of formats, tokens or engines. `benchmarks/served.py` and the tests hold what it solves against what
`evaluate` says.
"""

from __future__ import annotations

import json
from typing import Any

from steptool.core.types import Outcome, Task, ToolCall
from steptool.formats.tool_text import openai_tools
from steptool.worlds.base import World


async def attempt(client: Any, model: str, world: World, task: Task, *, max_calls: int) -> tuple[Outcome, list[Any]]:
    """What came of one attempt at a task, and its messages. `client` is an `openai.AsyncOpenAI`."""
    session = world.open(task, 0)
    messages: list[Any] = [{"role": "user", "content": task.query}]
    answer = None
    for _ in range(max_calls):
        made = await client.chat.completions.create(
            model=model, messages=messages, tools=openai_tools(task.tools), temperature=0
        )
        message = made.choices[0].message
        messages.append(message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}))
        if not message.tool_calls:
            answer = message.content
            break
        for call in message.tool_calls:
            made_call = ToolCall(name=call.function.name, arguments=json.loads(call.function.arguments))
            observation = await session.call(made_call)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": observation.text})
    return await session.close(answer), messages

"""A plain OpenAI client that works on the tasks of a world: what any agent does with the server, in thirty lines.

    messages ─ server ─ tool_calls ─ session.call ─ a `tool` message ─ server ─ … ─ content: the answer

It knows nothing of tokens or engines. `benchmarks/served.py` and the tests hold what it solves against what
`evaluate` says.
"""

from __future__ import annotations

import json
from typing import Any

from steptool.core.types import Outcome, Task, ToolCall
from steptool.formats.names import TEXT, Names, Spelling
from steptool.formats.tool_text import openai_tools
from steptool.worlds.base import World


def offer(task: Task, spelling: Spelling) -> list[dict[str, Any]]:
    """OpenAI's `tools`, their names as `spelling` has them."""
    written, tools = Names.of(task.tools, spelling).written, openai_tools(task.tools)
    for tool in tools:
        tool["function"]["name"] = written[tool["function"]["name"]]
    return tools


async def attempt(
    client: Any, model: str, world: World, task: Task, *, max_calls: int, spelling: Spelling = TEXT
) -> tuple[Outcome, list[Any]]:
    """What came of one attempt at a task, and its messages, in which calls have the names of the world's tools as
    `spelling` has them: `OPENAI` is what OpenAI's own API takes, and what `native` trains with.

    `client` is an `openai.AsyncOpenAI`.
    """
    names, offered = Names.of(task.tools, spelling), offer(task, spelling)
    session = world.open(task, 0)
    messages: list[Any] = [{"role": "user", "content": task.query}]
    answer = None
    for _ in range(max_calls):
        made = await client.chat.completions.create(model=model, messages=messages, tools=offered, temperature=0)
        message = made.choices[0].message
        messages.append(message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}))
        if not message.tool_calls:
            answer = message.content
            break
        for call in message.tool_calls:
            name = names.meant.get(call.function.name, call.function.name)
            made_call = ToolCall(name=name, arguments=json.loads(call.function.arguments))
            observation = await session.call(made_call)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": observation.text})
    return await session.close(answer), messages

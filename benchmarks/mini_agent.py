"""An agent of the bundled world's tools: a plain loop around OpenAI's client, as `benchmarks.gateway` runs many."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from openai import OpenAI

from steptool.config.places import PARAMS
from steptool.config.settings import load_params
from steptool.core.types import ToolCall
from steptool.formats.tool_text import openai_tools
from steptool.worlds.base import SPLITS, World

_params = load_params(PARAMS)
WORLD: World = _params.world.build(_params.seed)
TASKS = {task.query: task for split in SPLITS for task in WORLD.tasks(split)}


def run(query: str) -> None:
    task = TASKS[query]
    session, client = WORLD.open(task, 0), OpenAI()
    tools: Any = openai_tools(task.tools)
    messages: list[Any] = [{"role": "user", "content": query}]
    while True:
        message: Any = client.chat.completions.create(model="policy", messages=messages, tools=tools).choices[0].message
        if not message.tool_calls:
            return
        messages.append(message.model_dump(include={"role", "content", "tool_calls"}))
        for made in message.tool_calls:
            call = ToolCall(name=made.function.name, arguments=json.loads(made.function.arguments))
            seen = asyncio.run(session.call(call))
            messages.append({"role": "tool", "tool_call_id": made.id, "content": seen.text})

"""An agent in a loop of its own over OpenAI's client. Nothing in it knows of StepTool.

python plain_agent.py < question.txt      asks OpenAI, or whatever OPENAI_BASE_URL names
"""

from __future__ import annotations

import json
import sys
from typing import Any

import desk
from openai import OpenAI

TEXT, NUMBER = {"type": "string"}, {"type": "integer"}


def tool(name: str, **arguments: dict[str, str]) -> Any:
    parameters = {"type": "object", "properties": arguments, "required": list(arguments)}
    description = desk.TOOLS[name].__doc__
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = [
    tool("find_train", origin=TEXT, destination=TEXT),
    tool("times", id=TEXT),
    tool("fare", id=TEXT, people=NUMBER),
    tool("seats", id=TEXT),
]


def run(query: str) -> str | None:
    client = OpenAI()
    messages: list[Any] = [
        {"role": "system", "content": "You answer questions about trains."},
        {"role": "user", "content": query},
    ]
    while True:
        message = client.chat.completions.create(model="gpt-4o-mini", messages=messages, tools=TOOLS).choices[0].message
        messages.append(message)
        if not message.tool_calls:
            return message.content
        for asked in message.tool_calls:
            try:
                reply = desk.TOOLS[asked.function.name](**json.loads(asked.function.arguments))
            except (KeyError, TypeError, ValueError) as error:
                reply = f"Error: {error}"
            messages.append({"role": "tool", "tool_call_id": asked.id, "content": reply})


if __name__ == "__main__":
    print(run(sys.stdin.read().strip()))

"""What a model reads of the tools that it may call: a line each, as short as the whole schema allows.

    weather(city (Name of a city), days?: integer = 3, unit?: c|f, at?: {lat: number, lon: number}) - Tells the weather.
    └ name  └ required, a text     └ optional, its default  └ enum └ an object, its parts            └ description

The text is written by Jinja macros and by nothing else, so that a server which renders OpenAI's `tools` with the chat
template of a format (`served_template`) shows a model what it was trained on, to the character.

Written: types, enums, constants, formats, defaults, descriptions, `$ref` (in place; a reference to itself by name),
anyOf, oneOf, allOf and nullable. Not written: bounds of numbers and lengths, patterns, titles, examples.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

from steptool.core.types import Tool
from steptool.formats.tool_macros import SHORTER, macros

CHARACTERS_A_TOKEN = 3
"""A budget of tokens is measured in characters, which a template can count: so many for each token."""


def openai_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Tools as OpenAI's API has them."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
        }
        for tool in tools
    ]


def describe_tool(tool: Tool, level: int = 0) -> str:
    """The line of one tool whose name can be written, after the first `level` steps of `SHORTER`."""
    return str(_module().tool_line(openai_tools([tool])[0], tool.name, level))


def describe_tools(tools: Sequence[Tool], most: int) -> tuple[str, int]:
    """A line each, in at most `most` characters where that is possible, and how many steps of `SHORTER` it took."""
    return _described(json.dumps(openai_tools(tools)), most)


@lru_cache(maxsize=4096)
def _described(tools: str, most: int) -> tuple[str, int]:
    """Every attempt at a task asks for the same text."""
    text, _, level = str(_module().measured(json.loads(tools), most)).rpartition("\n")
    return text, int(level)


def shortened_lines(tools: Sequence[Tool], tools_budget: int) -> list[str]:
    """What the tools of a task lack in a budget of so many tokens, a line each; empty where they are whole."""
    most = tools_budget * CHARACTERS_A_TOKEN
    text, level = describe_tools(tools, most)
    lines = list(SHORTER[:level])
    if len(text) > most:
        lines.append(
            f"the {len(tools)} tools still take {len(text):,} characters, more than the {most:,} of "
            f"tools_budget: {tools_budget}; offer fewer tools, or raise format.tools_budget and sample.max_tokens"
        )
    return lines


@cache
def _module() -> Any:
    text = macros() + (
        "{%- macro measured(tools, most) -%}{%- call(text, level) fitting(tools, most) -%}"
        "{{ text }}{{ '\\n' }}{{ level }}{%- endcall -%}{%- endmacro -%}"
    )
    return template_environment().from_string(text).module


@cache
def template_environment() -> ImmutableSandboxedEnvironment:
    """Jinja as Hugging Face sets it up for chat templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    return environment


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)

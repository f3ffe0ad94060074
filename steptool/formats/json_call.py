"""One call a turn, as a name and a JSON object: the format that a small model learns in a few hundred examples.

A rollout is `prompt · action · observation · action · …`, where an action is what the model sampled:

    thought, any number of lines          optional
    name {"argument": value}              the call, on the last line
    <end of turn>                         the stop token, sampled too
"""

from __future__ import annotations

import json
import re
from typing import ClassVar

from steptool.core.types import FINISH, TOOL_NAME, Action, ToolCall
from steptool.formats.arguments import FINISH_PROBLEM, ends_attempt, read_arguments
from steptool.formats.one_call import OneCall

INSTRUCTIONS = (
    f'Call one tool a turn: name {{"arg": value}}\nEnd with {FINISH} {{"answer": "..."}} or {{"give_up": true}}'
)
"""What every prompt begins with. A small model pays for each of its tokens in every task."""

_CALL = re.compile(rf"({TOOL_NAME})[ \t]*(.*)", re.ASCII)

_ACTION_MACRO = r"""
{%- macro action_of(message, tools) -%}
  {%- set thought = text_of(message.content).strip() -%}
  {%- if message.tool_calls -%}
    {{ thought ~ '\n' if thought }}
    {%- for call in message.tool_calls -%}
      {{ written_name(tools, call.function.name) ~ ' ' ~ arguments_of(call) }}{{ '\n' if not loop.last }}
    {%- endfor -%}
  {%- else -%}
    {{ FINISH ~ ' ' ~ {'answer': thought} | tojson }}
  {%- endif -%}
{%- endmacro -%}
"""


class JsonCall(OneCall):
    name: ClassVar[str] = "json_call"
    instructions: ClassVar[str] = INSTRUCTIONS
    action_macro: ClassVar[str] = _ACTION_MACRO

    @staticmethod
    def read(text: str) -> Action:
        thought, _, line = text.strip().rpartition("\n")
        found = _read_call(line.strip())
        if isinstance(found, ToolCall):
            return Action(thought=thought.strip(), calls=(found,))
        return Action(thought=text.strip(), unreadable=found)

    @staticmethod
    def write(action: Action) -> str:
        call, thought = action.calls[0], action.thought.strip()
        line = f"{call.name} {json.dumps(call.arguments, ensure_ascii=False)}"
        return f"{thought}\n{line}" if thought else line

    def hint(self, problem: str) -> str:
        return f'parse error: {problem}. Use: name {{"arg": value}}'


def _read_call(line: str) -> ToolCall | str:
    """The call on a line, or what is wrong with it."""
    match = _CALL.fullmatch(line)
    if not match:
        return "no call on the last line"
    name, text = match.groups()
    arguments = read_arguments(text)
    if isinstance(arguments, str):
        return arguments if text.startswith("{") else f"{arguments} after {name[:64]}"
    if name == FINISH and not ends_attempt(arguments):
        return FINISH_PROBLEM
    return ToolCall(name=name, arguments=arguments)

"""ToolBench's text: a thought, the name of a function, and its arguments as JSON.

    Thought: It asks for an order.
    Action: find_order
    Action Input: {"id": "a-1"}

An attempt ends with `Finish`, whose arguments are ToolBench's: `{"return_type": "give_answer", "final_answer": …}` or
`{"return_type": "give_up_and_restart"}`. In an Action they are those of every other format, `answer` and `give_up`.
The turns around it are those of the model's chat template; the words of the prompt are ours.
"""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

from steptool.core.types import FINISH, TOOL_NAME, Action, ToolCall
from steptool.formats.arguments import ends_attempt, read_arguments
from steptool.formats.one_call import OneCall

ANSWERS, GIVES_UP = "give_answer", "give_up_and_restart"
INSTRUCTIONS = f"""Do the task that the user sets, with the functions below. Call one function a turn, written so:
Thought: what is known, and what to do next
Action: name of the function
Action Input: {{"argument": value}}
Its reply comes back before your next turn. End with the function {FINISH}, and as its Action Input either
{{"return_type": "{ANSWERS}", "final_answer": "..."}} or {{"return_type": "{GIVES_UP}"}}
Functions:"""

_ACTION = re.compile(r"^Action:", re.MULTILINE)
_CALL = re.compile(rf"Action:[ \t]*({TOOL_NAME})[ \t]*\r?\nAction Input:\s*(.*)", re.ASCII | re.DOTALL)

_ACTION_MACRO = r"""
{%- macro action_of(message, tools) -%}
  {%- set thought = text_of(message.content).strip() -%}
  {%- if message.tool_calls -%}
    {{ 'Thought: ' ~ thought ~ '\n' if thought }}
    {%- for call in message.tool_calls -%}
      {{ 'Action: ' ~ written_name(tools, call.function.name) ~ '\nAction Input: ' ~ arguments_of(call) }}
      {{- '\n' if not loop.last }}
    {%- endfor -%}
  {%- else -%}
    {{ 'Action: ' ~ FINISH ~ '\nAction Input: ' ~ {'return_type': 'give_answer', 'final_answer': thought} | tojson }}
  {%- endif -%}
{%- endmacro -%}
"""


class React(OneCall):
    name: ClassVar[str] = "react"
    instructions: ClassVar[str] = INSTRUCTIONS
    action_macro: ClassVar[str] = _ACTION_MACRO

    @staticmethod
    def read(text: str) -> Action:
        text = text.strip()
        start = _ACTION.search(text)
        found = _read_call(text[start.start() :]) if start else "no line that begins with Action:"
        if start is None or isinstance(found, str):
            return Action(thought=text, unreadable=str(found))
        return Action(thought=text[: start.start()].strip().removeprefix("Thought:").strip(), calls=(found,))

    @staticmethod
    def write(action: Action) -> str:
        """Raises ValueError for a thought with a line that begins like an action."""
        call, thought = action.calls[0], action.thought.strip()
        if _ACTION.search(thought):
            raise ValueError("react cannot write a thought in which a line begins with Action:")
        arguments = _finish(call.arguments) if call.name == FINISH else call.arguments
        lines = [f"Action: {call.name}", f"Action Input: {json.dumps(arguments, ensure_ascii=False)}"]
        return "\n".join([f"Thought: {thought}", *lines] if thought else lines)

    def hint(self, problem: str) -> str:
        return f'parse error: {problem}. Use: Thought: ...\nAction: name\nAction Input: {{"argument": value}}'


def _read_call(text: str) -> ToolCall | str:
    """The call that a text is, or what is wrong with it."""
    match = _CALL.fullmatch(text)
    if not match:
        return "Action: and a function's name, then Action Input: and its arguments"
    name, written = match.groups()
    arguments = read_arguments(written)
    if isinstance(arguments, str):
        return arguments if written.startswith("{") else f"{arguments} after Action Input:"
    if name != FINISH:
        return ToolCall(name=name, arguments=arguments)
    ending = _ending(arguments)
    if ending is None:
        return f'{FINISH} takes "return_type": "{ANSWERS}" with a "final_answer", or "{GIVES_UP}"'
    return ToolCall(name=FINISH, arguments=ending)


def _ending(arguments: dict[str, Any]) -> dict[str, Any] | None:
    """ToolBench's arguments of `Finish` as an Action has them; None for others."""
    kind, answer = arguments.get("return_type"), arguments.get("final_answer")
    if kind == ANSWERS and answer is not None and set(arguments) == {"return_type", "final_answer"}:
        return {"answer": answer}
    return {"give_up": True} if kind == GIVES_UP and set(arguments) <= {"return_type", "final_answer"} else None


def _finish(arguments: dict[str, Any]) -> dict[str, Any]:
    if not ends_attempt(arguments):
        raise ValueError(f"{FINISH} takes either an answer or give_up, got {sorted(arguments)}")
    return (
        {"return_type": ANSWERS, "final_answer": arguments["answer"]}
        if "answer" in arguments
        else {"return_type": GIVES_UP}
    )

"""One call a turn, as a name and a JSON object: the format that a small model learns in a few hundred examples.

A rollout is `prompt · action · observation · action · …`, where an action is what the model sampled:

    thought, any number of lines          optional
    name {"argument": value}              the call, on the last line
    <end of turn>                         the stop token, sampled too

Everything between the texts (turn markers, roles, the generation prompt) comes from the tokenizer's own
chat template (`turns`). Nothing sampled is ever decoded and encoded again for training. A policy cannot send the user
a message, nor call two tools at once: it ends with `Finish`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, ClassVar

from steptool.core.fields import Positive, Settings
from steptool.core.types import FINISH, TOOL_NAME, Action, Observation, Task, ToolCall
from steptool.formats.arguments import FINISH_PROBLEM, ends_attempt, read_arguments
from steptool.formats.names import TEXT, Names
from steptool.formats.served_template import served_template
from steptool.formats.tool_text import CHARACTERS_A_TOKEN, describe_tools, shortened_lines
from steptool.formats.turns import Turns

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


class JsonCall:
    """`tokenizer` is a Hugging Face tokenizer with a chat template; it is only asked to encode and decode.

    Raises ModelError where the template is missing, does not end, or does not keep a conversation's prefix.
    """

    name: ClassVar[str] = "json_call"

    class Config(Settings):
        max_observation: Positive = 1024
        """Characters of an observation, as in ToolBench: what is longer is cut and ends in `...`."""
        tools_budget: Positive = 512
        """Tokens that the tools of a task may take in its prompt, counted as 3 characters each. Where they take more,
        `tool_macros.SHORTER` says what is shortened first."""

    def __init__(self, config: Config, tokenizer: Any) -> None:
        self.config = config
        self.max_observation = config.max_observation
        self.turns = turns = Turns(tokenizer, config.max_observation)
        self.end_of_turn: int = turns.end_of_turn
        self.stop_ids: tuple[int, ...] = turns.stop_ids
        """Tokens at which sampling an action stops."""

    def prompt(self, task: Task) -> tuple[int, ...]:
        """System message with the offered tools, the query, and the generation prompt."""
        return self.turns.prompt(self._system(task), task.query)

    def reply(
        self, action_ids: Sequence[int], observations: Sequence[Observation], message: str | None
    ) -> tuple[int, ...]:
        """All tokens between an action and the next: rest of the turn, tool message, generation prompt.

        Where the action was cut short or stopped at another token than `end_of_turn`, the end of turn is added here,
        as context. Raises ValueError for a message, and for anything but one observation.
        """
        if message is not None or len(observations) != 1:
            raise ValueError(f"json_call has one observation a turn and no messages, got {len(observations)}")
        return self.turns.reply(action_ids, observations[0].text)

    def parse(self, ids: Sequence[int], task: Task | None = None) -> Action:
        """Read a sampled action. Never raises: what cannot be read is `unreadable`, and all of it the thought.

        Without a task, names stay as they are written.
        """
        action = read_action(self.turns.decode(ids))
        return action if task is None else Names.of(task, TEXT).read(action)

    def render(self, action: Action, task: Task | None = None) -> tuple[int, ...]:
        """Ids of a demonstrated action, its end of turn included; `parse` gives it back.

        Raises ValueError for anything but one call.
        """
        if len(action.calls) != 1:
            raise ValueError("json_call can write an action of one call, and no other")
        action = action if task is None else Names.of(task, TEXT).write(action)
        call, thought = action.calls[0], action.thought.strip()
        line = f"{call.name} {json.dumps(call.arguments, ensure_ascii=False)}"
        return (*self.turns.encode_action(f"{thought}\n{line}" if thought else line), self.end_of_turn)

    def hint(self, problem: str) -> str:
        return f'parse error: {problem}. Use: name {{"arg": value}}'

    def shortened(self, task: Task) -> list[str]:
        """What the budget left out of the tools of a task, a line each."""
        return shortened_lines(task.tools, self.config.tools_budget)

    def chat_template(self) -> str:
        """Jinja that writes OpenAI messages with tools as the tokens of this format."""
        return served_template(
            self.turns.template,
            instructions=INSTRUCTIONS,
            action_macro=_ACTION_MACRO,
            end_of_turn=self.turns.end_text,
            max_observation=self.max_observation,
            tools_budget=self.config.tools_budget,
        )

    def tool_parser(self) -> str:
        return self.name

    def _system(self, task: Task) -> str:
        text, _ = describe_tools(task.tools, self.config.tools_budget * CHARACTERS_A_TOKEN)
        return f"{INSTRUCTIONS}\n{text}" if text else INSTRUCTIONS


def read_action(text: str) -> Action:
    """The action that a model wrote, the end of its turn left out, with the names as it wrote them. Never raises."""
    thought, _, line = text.strip().rpartition("\n")
    found = _read_call(line.strip())
    if isinstance(found, ToolCall):
        return Action(thought=thought.strip(), calls=(found,))
    return Action(thought=text.strip(), unreadable=found)


def _read_call(line: str) -> ToolCall | str:
    """The call on a line, or what is wrong with it."""
    match = _CALL.fullmatch(line)
    if not match:
        return "no call on the last line"
    name, text = match.groups()
    arguments = read_arguments(text)
    if isinstance(arguments, str):
        return f"{arguments} after {name[:64]}" if not text.startswith("{") else arguments
    if name == FINISH and not ends_attempt(arguments):
        return FINISH_PROBLEM
    return ToolCall(name=name, arguments=arguments)

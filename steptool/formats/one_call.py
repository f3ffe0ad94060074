"""What formats of plain text with one call a turn have in common: all but how an action is spelled.

    prompt   instructions and tools as the system's message, and the query
    action   a text that the format spells and reads, and the end of the turn
    reply    the observation as the tool's message

Everything between the texts (turn markers, roles, the generation prompt) comes from the tokenizer's own chat template
(`turns`). Nothing sampled is ever decoded and encoded again for training. A policy cannot send the user a message, nor
call two tools at once: it ends with `Finish`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from steptool.core.fields import Positive, Settings
from steptool.core.messages import Message, openai_message, task_messages
from steptool.core.types import Action, Observation, Task, Tool
from steptool.formats.names import TEXT, Names
from steptool.formats.served_template import action_text, served_template
from steptool.formats.tool_text import CHARACTERS_A_TOKEN, describe_tools, openai_tools, shortened_lines
from steptool.formats.turns import Turns


class OneCall(ABC):
    """`tokenizer` is a Hugging Face tokenizer with a chat template; it is only asked to encode and decode.

    Raises ModelError where the template is missing, does not end, or does not keep a conversation's prefix.
    """

    name: ClassVar[str]
    instructions: ClassVar[str]
    """What every prompt begins with; the tools follow."""
    one_at_a_time: ClassVar[Literal[True]] = True
    action_macro: ClassVar[str]
    """Jinja that defines `action_of(message, tools)`: an assistant's message of OpenAI's as `write` spells it."""

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

    @staticmethod
    @abstractmethod
    def read(text: str) -> Action:
        """The action that a model wrote, the end of its turn left out, with the names as it wrote them. Never raises:
        what cannot be read is `unreadable`, and all of it the thought."""

    @staticmethod
    @abstractmethod
    def write(action: Action) -> str:
        """The text of an action of one call."""

    def prompt(self, task: Task) -> tuple[int, ...]:
        """System message with the offered tools, the query, and the generation prompt."""
        return self.conversation(task_messages(task), task.tools)

    def conversation(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[int, ...]:
        """The tokens that `chat_template` writes of these messages and tools, and the generation prompt.

        Raises ValueError where nothing is asked, or the assistant has spoken last.
        """
        system = [message.text for message in messages if message.role == "system"]
        offered = openai_tools(tools)
        turns = [
            (True, action_text(self.action_macro, openai_message(message), offered))
            if message.role == "assistant"
            else (False, message.text)
            for message in messages
            if message.role != "system"
        ]
        text, _ = describe_tools(tools, self.config.tools_budget * CHARACTERS_A_TOKEN)
        offer = f"{self.instructions}\n{text}" if text else self.instructions
        return self.turns.conversation("\n".join([offer, *system]), turns)

    def reply(
        self, action_ids: Sequence[int], observations: Sequence[Observation], message: str | None
    ) -> tuple[int, ...]:
        """All tokens between an action and the next: rest of the turn, tool message, generation prompt.

        Where the action was cut short or stopped at another token than `end_of_turn`, the end of turn is added here,
        as context. Raises ValueError for a message, and for anything but one observation.
        """
        if message is not None or len(observations) != 1:
            raise ValueError(f"{self.name} has one observation a turn and no messages, got {len(observations)}")
        return self.turns.reply(action_ids, observations[0].text)

    def parse(self, ids: Sequence[int], task: Task | None = None) -> Action:
        """Read a sampled action. Never raises: what cannot be read is `unreadable`, and all of it the thought.

        Without a task, names stay as they are written.
        """
        action = self.read(self.turns.decode(ids))
        return action if task is None else Names.of(task.tools, TEXT).read(action)

    def render(self, action: Action, task: Task | None = None) -> tuple[int, ...]:
        """Ids of a demonstrated action, its end of turn included; `parse` gives it back.

        Raises ValueError for anything but one call.
        """
        if len(action.calls) != 1:
            raise ValueError(f"{self.name} can write an action of one call, and no other")
        action = action if task is None else Names.of(task.tools, TEXT).write(action)
        return (*self.turns.encode_action(self.write(action)), self.end_of_turn)

    def shortened(self, task: Task) -> list[str]:
        """What the budget left out of the tools of a task, a line each."""
        return shortened_lines(task.tools, self.config.tools_budget)

    def chat_template(self) -> str:
        """Jinja that writes OpenAI messages with tools as the tokens of this format."""
        return served_template(
            self.turns.template,
            self.turns.control_names,
            instructions=self.instructions,
            action_macro=self.action_macro,
            end_of_turn=self.turns.end_text,
            max_observation=self.max_observation,
            tools_budget=self.config.tools_budget,
        )

    def tool_parser(self) -> str:
        """The name of this format: its parser is a plugin of ours for vLLM's server, around `read`."""
        return self.name

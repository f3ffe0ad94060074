"""The protocol of prompt formats. A format turns a conversation into tokens, and sampled tokens into actions.

class React:
    class Config(Settings): ...
    def __init__(self, config: Config, tokenizer): ...      a Hugging Face tokenizer
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from steptool.core.messages import Message
from steptool.core.types import Action, Observation, Task, Tool


class Format(Protocol):
    stop_ids: tuple[int, ...]
    """Tokens at which sampling an action stops."""
    max_observation: int
    """Most characters of an observation or of a user's message that a policy sees. A longer text is cut."""

    def prompt(self, task: Task) -> tuple[int, ...]:
        """Offered tools, query and all markers up to where the policy begins."""
        ...

    def reply(
        self, action_ids: Sequence[int], observations: Sequence[Observation], message: str | None
    ) -> tuple[int, ...] | None:
        """All tokens between the action `action_ids` and the next: what came back, and the markers around it.

        `message` is the user's, where the action was one. None where the stream cannot be extended exactly.
        """
        ...

    def parse(self, ids: Sequence[int], task: Task) -> Action:
        """Read a sampled action. Never raises: what cannot be read is an action with `unreadable`.

        The names in its calls are the world's, whatever the format writes in their place (`names`).
        """
        ...

    def render(self, action: Action, task: Task) -> tuple[int, ...]:
        """Ids of a demonstrated action, its end of turn included; `parse` gives it back.

        Raises ValueError for an action that the format does not have.
        """
        ...

    def hint(self, problem: str) -> str:
        """What the policy is shown after an action that could not be read."""
        ...


@runtime_checkable
class Shortens(Protocol):
    """A format that leaves something of a task's tools out of the prompt where they are long."""

    def shortened(self, task: Task) -> Sequence[str]:
        """What was left out, a line each; empty where nothing was."""
        ...


@runtime_checkable
class OneAtATime(Protocol):
    """A format whose actions hold one call at most. Calls that were made at the same time are written one by one."""

    one_at_a_time: Literal[True]


@runtime_checkable
class Converses(Protocol):
    """A format that writes any conversation, such as an agent sends to the gateway."""

    def conversation(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[int, ...]:
        """All tokens up to where the policy begins its next action; names are written as the format can carry them.

        The tokens of `prompt` for one user message and the tools of a task; those of the chat template that is served
        for anything else that a client sends. Raises ValueError for what the format cannot write.
        """
        ...


@runtime_checkable
class Served(Protocol):
    """A format that an ordinary OpenAI client can use through vLLM's server."""

    def chat_template(self) -> str | None:
        """Jinja that renders messages and tools as the tokens of `prompt`, `render` and `reply`.

        None where that is what the model's own template does.
        """
        ...

    def tool_parser(self) -> str:
        """Name of the parser that turns the model's text into `tool_calls`: one of vLLM's, or of a format of ours."""
        ...

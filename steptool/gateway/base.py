"""What the gateway hands on: a request as it was read, and the reply that is written back.

client ── JSON ──► gateway ── ChatRequest ──► complete ── ChatReply ──► gateway ── JSON ──► client
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from steptool.core.messages import Message, MessageCall
from steptool.core.types import Frozen, Tool


class ChatRequest(Frozen):
    """What an agent asks for, by whichever of the two APIs. What would change how actions are sampled is not in it."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    """What is offered; empty too where `tool_choice` is none."""
    tool_choice: str = "auto"
    """`auto`, `none`, `required`, or the name of the one tool that shall be called."""
    max_tokens: int | None = None
    """Most tokens of the reply, where the agent sets a limit of its own."""
    model: str = ""
    """The name that the agent calls the model by: any will do."""


class ChatReply(Frozen):
    text: str = ""
    calls: tuple[MessageCall, ...] = ()
    prompt_tokens: int = 0
    """Tokens before the reply."""
    tokens: int = 0
    """Tokens of the reply."""
    finish: Literal["stop", "tool_calls", "length"] = "stop"
    """`length`: it was cut at a limit of its tokens."""

    @property
    def message(self) -> Message:
        """As it stands in the messages of a request that continues it."""
        return Message(role="assistant", text=self.text, calls=self.calls)


Complete = Callable[[ChatRequest], Awaitable[ChatReply]]
"""Answers the requests of one attempt. May raise Refused; anything else that it raises is an internal error."""


class Refused(Exception):
    """A request that gets no reply, with the error that the client is told, as OpenAI's API has it.

    The official client sends a request again by itself only where `is_busy`.
    """

    def __init__(self, message: str, *, code: str, status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        self.message, self.code, self.status, self.param = message, code, status, param

    @property
    def is_busy(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.status == 429

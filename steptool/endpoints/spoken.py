"""An endpoint as format and engine of one attempt: each message is one token, so that every search can use it.

    ids      0                 1          2                  3
    stands   the conversation  its reply  what came back     its reply
    for      and the tools

The tokens are numbers of what was said in this attempt and mean nothing outside of it: `without_tokens` takes them out
of what a search has made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from steptool.core.messages import Message, openai_message
from steptool.core.types import Action, Conditions, Observation, Step, StopReason, Task, Tool, Trajectory
from steptool.endpoints.chat import TOO_LONG, Chat, Reply, TooLong, action_of, following, hint, offered, opening
from steptool.engines.base import Generation
from steptool.formats.tool_text import openai_tools

Ask = Callable[[Chat, Sequence[dict[str, Any]], int], Awaitable[Reply]]
"""The answer to a conversation with these tools, of so many tokens at most."""


class Spoken:
    """The format of one attempt, and with `act` its engine. `system` stands before every conversation that has none."""

    stop_ids: tuple[int, ...] = ()

    def __init__(self, ask: Ask, *, max_observation: int, system: str) -> None:
        self.max_observation = max_observation
        self._ask, self._system = ask, system
        self._said: list[tuple[Chat, list[dict[str, Any]]] | Chat | Reply] = []

    def prompt(self, task: Task) -> tuple[int, ...]:
        return self._token((opening(task, self._system), offered(task)))

    def conversation(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[int, ...]:
        has_system = any(each.role == "system" for each in messages)
        first = [Message(role="system", text=self._system)] if self._system and not has_system else []
        chat = [openai_message(each) for each in (*first, *messages)]
        return self._token((chat, openai_tools(tools)))

    async def act(self, stream: Sequence[int], most: int, seed: int) -> Generation:
        """Ask for the next message. Raises what `ask` raises, but for TooLong: that is an action that says so."""
        first, *others = (self._said[token] for token in stream)
        assert isinstance(first, tuple), "a stream begins with a conversation"
        chat, tools = first
        backs = [each for each in others if isinstance(each, list)]
        try:
            reply = await self._ask([*chat, *(message for back in backs for message in back)], tools, most)
        except TooLong:
            reply = Reply(finish=TOO_LONG)
        return Generation(self._token(reply), (0.0,), stopped=True)

    def parse(self, ids: Sequence[int], task: Task) -> Action:
        return action_of(self._reply(ids), task)

    def reply(
        self, action_ids: Sequence[int], observations: Sequence[Observation], message: str | None
    ) -> tuple[int, ...]:
        return self._token(following(self._reply(action_ids), observations, message))

    def render(self, action: Action, task: Task) -> tuple[int, ...]:
        raise ValueError("what an endpoint says is not rendered")

    def hint(self, problem: str) -> str:
        return hint(problem)

    def _reply(self, ids: Sequence[int]) -> Reply:
        found = self._said[ids[-1]]
        assert isinstance(found, Reply), "an action is a reply"
        return found

    def _token(self, said: Any) -> tuple[int, ...]:
        self._said.append(said)
        return (len(self._said) - 1,)


def without_tokens(made: Trajectory, conditions: Conditions | None) -> Trajectory:
    """The attempt as it is kept, ended where the conversation no longer fitted the model."""
    bare = {"context_ids": (), "action_ids": (), "action_logprobs": ()}
    steps: list[Step] = [step.model_copy(update=bare) for step in made.steps]
    fields: dict[str, Any] = {**dict(made), "conditions": conditions}
    place = next((index for index, step in enumerate(steps) if step.action.unreadable == TOO_LONG), None)
    if place is not None:
        steps = steps[:place]
        fields |= {"stop_reason": StopReason.token_budget, "answer": None, "error": None}
    return Trajectory.create(**{**fields, "steps": tuple(steps)})

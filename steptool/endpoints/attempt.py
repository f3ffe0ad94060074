"""An attempt that is made by messages: what `Branch` is for tokens, with the same budget of actions and the same guard.

    conversation ─ ask ─ Reply ─ calls ─ the session ─ observations ─ the conversation goes on
                                 └ a message that nobody answers, or the last allowed action: the session judges

Its steps have no tokens, so nothing is trained on them by their log-probabilities.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from steptool.core.errors import StepToolError, describe
from steptool.core.types import Action, Conditions, Observation, Outcome, Revision, Step, StopReason, Task, Trajectory
from steptool.endpoints.chat import Chat, Reply, action_of, following, hint, offered, opening
from steptool.endpoints.client import TooLong
from steptool.rollouts.ending import Ending
from steptool.rollouts.guard import GuardedSession
from steptool.worlds.base import Session

Ask = Callable[[Chat, list[dict[str, Any]], int], Awaitable[Reply]]
"""The answer to a conversation with these tools, of an attempt."""


@dataclass(frozen=True)
class Spoken:
    """One attempt at one task, before it is made."""

    task: Task
    open: Callable[[], Session]
    ask: Ask
    policy: Revision
    conditions: Conditions | None
    number: int
    """Which of the attempts at this task, from 0."""
    max_calls: int
    """Actions, the last one included."""
    max_observation: int
    """Characters of what the world replies."""
    tool_timeout_s: float
    system: str = ""

    async def make(self) -> Trajectory:
        """Raises StepToolError where no further request can succeed, and nothing else but cancellation and Ctrl-C: a
        bad attempt is a trajectory with a stop reason.
        """
        steps: list[Step] = []
        try:
            session = GuardedSession(self.open(), timeout_s=self.tool_timeout_s, most=self.max_observation)
        except KeyboardInterrupt:
            raise
        except BaseException as fault:  # noqa: BLE001 - whatever it is, it is this attempt's alone
            return self._trajectory(steps, Ending(StopReason.world_error, error=describe(fault)), Outcome())
        try:
            ending = await self._act(session, steps)
        except BaseException:  # the command is being ended: whatever comes of closing, it must come soon
            await session.leave()
            raise
        try:
            outcome = await session.close(ending.answer)
        except (KeyboardInterrupt, asyncio.CancelledError):
            raise
        except BaseException as fault:  # noqa: BLE001 - whatever the world does is this attempt's alone
            outcome = Outcome()
            if not ending.reason.broken:
                ending = replace(ending, reason=StopReason.world_error, error=describe(fault))
        return self._trajectory(steps, ending, outcome)

    async def _act(self, session: GuardedSession, steps: list[Step]) -> Ending:
        """Action after action, each with what came back appended to `steps`, until there is none."""
        chat, tools = opening(self.task, self.system), offered(self.task)
        while True:
            try:
                reply = await self.ask(chat, tools, self.number)
            except StepToolError:
                raise
            except TooLong:
                return Ending(StopReason.token_budget)
            except Exception as fault:  # noqa: BLE001 - whatever the endpoint does ends this attempt alone
                return Ending(StopReason.engine_error, error=describe(fault))
            action = action_of(reply, self.task)
            steps.append(Step(action=action))
            try:
                observations, user = await _carried_out(session, action)
            except (KeyboardInterrupt, asyncio.CancelledError):
                raise
            except BaseException as fault:  # noqa: BLE001 - a tool's failure is an observation; this is the world's
                return Ending(StopReason.world_error, error=describe(fault))
            if action.message is not None and user is None:
                return Ending(StopReason.finished, action.message)
            steps[-1] = Step(action=action, observations=observations, reply=user)
            if len(steps) == self.max_calls:
                return Ending(StopReason.call_budget)
            chat = [*chat, *following(reply, observations, user)]

    def _trajectory(self, steps: list[Step], ending: Ending, outcome: Outcome) -> Trajectory:
        return Trajectory.create(
            task_id=self.task.id,
            steps=tuple(steps),
            stop_reason=ending.reason,
            answer=ending.answer,
            outcome=outcome,
            policy=self.policy,
            conditions=self.conditions,
            seed=self.number,
            attempt=self.number,
            error=ending.error,
        )


async def _carried_out(session: GuardedSession, action: Action) -> tuple[tuple[Observation, ...], str | None]:
    """What came back: an observation of each call, made one after the other, or the user's reply to a message."""
    if action.unreadable is not None:
        return (Observation(text=hint(action.unreadable), error="parse_error"),), None
    if action.message is not None:
        return (), await session.say(action.message)
    return tuple([await session.call(call) for call in action.calls]), None

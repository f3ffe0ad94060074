"""A session whose every call comes back, with something that can be recorded or with an exception.

A world is code of somebody else. Each of its calls runs as an asyncio task of its own, so that a tool that cancels,
exits or never comes back ends its own attempt at most; what it returns is cut, made valid and built anew. Calls share
the thread with all attempts: a tool that blocks it holds everybody up, until it returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from steptool.core.errors import WorldError, describe
from steptool.core.types import Observation, Outcome, ToolCall
from steptool.formats.text import shorten
from steptool.worlds.base import Forks, HasState, Session

CANCELLED_GRACE_S = 2.0
"""How long a session may take to close, at most, once the whole run is being cancelled."""


class NoAnswer(WorldError):
    """A world did not come back in time."""


class GuardedSession:
    """`most`: characters of a text that the world returns; what is longer is cut.

    Its methods raise whatever the world raises, as well as WorldError and TypeError; a cancellation that leaves them is
    the caller's, never the world's.
    """

    def __init__(self, session: Session, *, timeout_s: float, most: int) -> None:
        self._session, self._timeout_s, self._most = session, timeout_s, most

    async def call(self, call: ToolCall) -> Observation:
        """A tool that does not answer in time is an observation, too."""
        # A copy: what a tool does to its arguments must not change what the policy is recorded to have said.
        copy = call.model_copy(deep=True)
        try:
            seen = await self._wait(call.name, lambda: self._session.call(copy))
        except NoAnswer as late:
            return Observation(text=f"error: {late.found}", error="timeout")
        if not isinstance(seen, Observation):
            raise TypeError(f"{call.name} returned {type(seen).__name__}, not an Observation")
        # Built anew, for the world may have left out the checks.
        return Observation(text=self._cut(seen.text), error=None if seen.error is None else self._cut(seen.error))

    async def say(self, message: str) -> str | None:
        """Raises NoAnswer where the user does not answer in time."""
        reply = await self._wait("say", lambda: self._session.say(message))
        if not (reply is None or isinstance(reply, str)):
            raise TypeError(f"say returned {type(reply).__name__}, not a text or None")
        return None if reply is None else self._cut(reply)

    def state(self) -> str | None:
        """What the world calls the state that it is in; None for the first, and where it does not tell."""
        if not isinstance(self._session, HasState):
            return None
        try:
            state = self._session.state()
        except SystemExit as fault:
            raise WorldError(f"state raised {describe(fault)}") from fault
        if not (state is None or isinstance(state, str)):
            raise TypeError(f"state returned {type(state).__name__}, not a text or None")
        return None if state is None else self._cut(state)

    def fork(self) -> GuardedSession | None:
        """A session of its own in the same state; None where the world cannot."""
        if not isinstance(self._session, Forks):
            return None
        try:
            twin = self._session.fork()
        except SystemExit as fault:
            raise WorldError(f"fork raised {describe(fault)}") from fault
        if twin is self._session:
            raise WorldError("fork returned the session itself, which is no copy of it")
        return None if twin is None else GuardedSession(twin, timeout_s=self._timeout_s, most=self._most)

    async def close(self, answer: str | None) -> Outcome:
        """Raises NoAnswer where it does not end in time."""
        outcome = await self._wait("close", lambda: self._session.close(answer))
        if not isinstance(outcome, Outcome):
            raise TypeError(f"close returned {type(outcome).__name__}, not an Outcome")
        return Outcome(solved=outcome.solved, evidence=self._cut(outcome.evidence))

    async def leave(self) -> None:
        """Close it while the whole run is being cancelled: whatever comes of that, it must come soon."""
        closing = asyncio.create_task(self.close(None))
        closing.add_done_callback(read_exception)
        await asyncio.wait({closing}, timeout=CANCELLED_GRACE_S)
        closing.cancel()

    def _cut(self, text: str) -> str:
        return shorten(text, self._most)

    async def _wait(self, name: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        reply = asyncio.create_task(reply_of(name, ask))
        reply.add_done_callback(read_exception)
        try:
            await asyncio.wait({reply}, timeout=self._timeout_s)
            if not reply.done():
                raise NoAnswer(f"{name} did not answer within {self._timeout_s:g} s")
            if reply.cancelled():
                raise WorldError(f"{name} cancelled its own call")
            return reply.result()
        finally:
            reply.cancel()  # a tool may refuse to end, so nobody waits for that


async def reply_of(name: str, ask: Callable[[], Awaitable[Any]]) -> Any:
    """What a world returns. Raises WorldError where it exits."""
    try:
        return await ask()
    except SystemExit as fault:  # it would end the event loop, and with it every attempt
        raise WorldError(f"{name} raised {describe(fault)}") from fault


def read_exception(reply: asyncio.Task[Any]) -> None:
    """For a call that fails after its timeout: Python prints the exceptions of tasks that no code has read."""
    if not reply.cancelled():
        reply.exception()

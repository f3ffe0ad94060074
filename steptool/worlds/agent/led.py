"""An agent that calls its tools as it is told: whoever calls takes the place of the model.

    call(find) ──▶ the reply to its request: a call of find ──▶ the agent calls find ──▶ its next request: the reply
                                                                                         of find ──▶ observation

So demonstrations are carried out, and a tool is tried by hand, though only the agent itself can call its tools.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from steptool.core.errors import WorldError
from steptool.core.failures import error_of
from steptool.core.messages import MessageCall
from steptool.core.types import Observation, ToolCall
from steptool.gateway.base import ChatReply, ChatRequest
from steptool.gateway.server import Gateway
from steptool.worlds.base import AgentFailed

Run = Callable[[str, str], Awaitable[str | None]]
"""Runs an agent with the address and the key of its model, until it has ended."""
Asked = tuple[ChatRequest, asyncio.Future[ChatReply]]


class LedAgent:
    """The connection of one attempt. The agent starts with the first call, and is ended with the connection."""

    def __init__(self, gateway: Gateway, run: Run) -> None:
        self._gateway, self._start = gateway, run
        self._requests: asyncio.Queue[Asked] = asyncio.Queue()
        self._running: asyncio.Future[str | None] | None = None
        self._waiting: Asked | None = None
        """Its request that has no reply yet."""
        self._key = ""
        self._calls = 0

    async def call(self, call: ToolCall) -> Observation:
        """Raises WorldError where the agent does not call the tool, or does not tell what it replied."""
        request, reply = self._waiting or await self._next("it asked for nothing that a call could answer")
        if call.name not in [tool.name for tool in request.tools]:
            raise WorldError(f"the agent does not offer {call.name} in this request", fix="call what it offers")
        self._calls += 1
        made = MessageCall(id=f"call_{self._calls}", name=call.name, arguments=json.dumps(call.arguments))
        self._waiting = None
        reply.set_result(ChatReply(calls=(made,), finish="tool_calls"))
        request, reply = self._waiting = await self._next(f"it did not tell what {call.name} replied")
        told = [message for message in request.messages if message.role == "tool" and message.call_id == made.id]
        if not told:
            raise WorldError(f"the agent's next request does not hold the reply of {call.name}")
        return Observation(text=told[-1].text, error=told[-1].error or error_of(told[-1].text))

    async def close(self) -> None:
        """End the agent."""
        if self._running is None:
            return
        self._gateway.close_key(self._key)
        self._running.cancel()
        with suppress(asyncio.CancelledError, AgentFailed, WorldError):
            await self._running

    async def _next(self, otherwise: str) -> Asked:
        """The next request of the agent. Raises WorldError where it ends before, which `otherwise` says."""
        if self._running is None:
            self._key = self._gateway.open(self._answer)
            self._running = asyncio.ensure_future(self._start(self._gateway.start(), self._key))
        request = asyncio.ensure_future(self._requests.get())
        either: set[asyncio.Future[Any]] = {request, self._running}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if request.done():
                return request.result()
        finally:
            request.cancel()
        failed = self._running.exception()
        if failed is not None and not isinstance(failed, AgentFailed):
            raise failed
        raise WorldError(f"the agent {'ended' if failed is None else f'failed ({failed})'}: {otherwise}")

    async def _answer(self, request: ChatRequest) -> ChatReply:
        reply: asyncio.Future[ChatReply] = asyncio.get_running_loop().create_future()
        self._requests.put_nowait((request, reply))
        return await reply

"""One connection to an MCP server, which outlives a call that hangs, is cancelled, or takes the server with it.

The SDK's connection must be left by the task that entered it, so it lives in a task of its own; calls come from other
tasks, and one that is cancelled tells the server so and leaves the connection as it is. Whatever goes wrong in a call
makes the connection doubtful: before the next call the server must list its tools, or it is ended and started again.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import Any

import anyio
from mcp import Client, MCPError
from mcp.types import CallToolResult, Tool
from pydantic import ValidationError

from steptool.core.errors import WorldError, reason
from steptool.worlds.mcp.place import LastWords, Place

START_S, PROBE_S, CALL_S, STOP_S = 60.0, 2.0, 300.0, 8.0
"""Longest wait for a server to start, to list its tools where it is doubtful, to reply, and to end. Rollouts wait
`sample.tool_timeout_s` for a call."""
MAX_PAGES = 1000
"""Of a listing of tools."""
FAULTS = (MCPError, ValidationError, RuntimeError, OSError, anyio.ClosedResourceError, anyio.BrokenResourceError)
"""What the SDK raises where a server does not keep to the protocol, or is gone."""

for name in ("mcp", "client"):  # the SDK's loggers: a server that prints to stdout would flood the terminal
    logging.getLogger(name).setLevel(logging.CRITICAL)


class Server:
    """Its methods run on one event loop. Nothing starts before the first of them."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._starting = asyncio.Lock()
        self._connection: _Connection | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._is_doubtful = False

    async def call(self, name: str, arguments: dict[str, Any], *, is_doubtful: bool = False) -> CallToolResult:
        """`is_doubtful`: whether the server may hang, since nobody waited for the end of an earlier call.

        Raises one of FAULTS where the call breaks, WorldError where no server can be started.
        """
        self._is_doubtful |= is_doubtful
        client = await self._connected()
        try:
            return await client.call_tool(name, arguments, read_timeout_seconds=CALL_S)
        except FAULTS:
            self._is_doubtful = True
            raise

    async def tools(self) -> list[Tool]:
        """All pages of its listing. Raises as `call` does."""
        client = await self._connected()
        page = await client.list_tools()
        found, seen = list(page.tools), set[str]()
        while page.next_cursor and page.next_cursor not in seen and len(seen) < MAX_PAGES:
            seen.add(page.next_cursor)
            page = await client.list_tools(cursor=page.next_cursor)
            found += page.tools
        return found

    async def close(self) -> None:
        """End the server, or the connection to it."""
        self._let_go()
        if self._ending:
            await asyncio.wait(self._ending, timeout=STOP_S)

    @property
    def is_started(self) -> bool:
        return self._connection is not None or bool(self._ending)

    @property
    def last_words(self) -> str:
        """The end of what it wrote to stderr."""
        return "" if self._connection is None else str(self._connection.words)

    async def _connected(self) -> Client:
        async with self._starting:
            if self._connection is not None and (self._connection.task.done() or not await self._is_well()):
                self._let_go()
            if self._connection is None:
                self._connection = _Connection(self._place)
            self._is_doubtful = False
            connection = self._connection
        try:
            return await asyncio.shield(connection.client)  # who waits may be cancelled, and another may wait too
        except (*FAULTS, BaseExceptionGroup) as fault:
            words = f"; it wrote: {connection.words}" if str(connection.words) else ""
            found = self._place.secrets.hide(f"the MCP server cannot be started: {_first(fault)}{words}")
            fix = "start it by hand to see why, or mend world.command or world.url in params.yaml"
            raise WorldError(found, where=str(self._place), fix=fix) from None

    async def _is_well(self) -> bool:
        connection = self._connection
        if not self._is_doubtful or connection is None or not connection.client.done():  # it is still starting
            return True
        try:
            async with asyncio.timeout(PROBE_S):
                await connection.client.result().list_tools(cache_mode="bypass")
        except (*FAULTS, BaseExceptionGroup):
            return False
        return True

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.leave()
            self._ending.add(self._connection.task)
            self._connection.task.add_done_callback(self._ending.discard)
            self._connection = None


class _Connection:
    """The task in which the SDK's connection lives, from its beginning to its end."""

    def __init__(self, place: Place) -> None:
        self.words = LastWords()
        self._end = asyncio.Event()
        self.client: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self.client.add_done_callback(lambda done: done.cancelled() or done.exception())  # somebody may not wait for it
        self.task = asyncio.create_task(self._live(place))

    def leave(self) -> None:
        if not self.client.done():  # it is still starting, and may never have done
            self.task.cancel()
        self._end.set()

    async def _live(self, place: Place) -> None:
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(START_S):
                    transport = await place.transport(stack, self.words)
                    client = await stack.enter_async_context(Client(transport))
                self.client.set_result(client)
                await self._end.wait()
        except (*FAULTS, WorldError, BaseExceptionGroup) as fault:
            if not self.client.done():
                self.client.set_exception(fault)
        finally:
            self.client.cancel()


def _first(fault: BaseException) -> str:
    """What the first of a group of faults says: the SDK's tasks fail together."""
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    return f"no reply within {START_S:g} s" if isinstance(fault, TimeoutError) else reason(fault)

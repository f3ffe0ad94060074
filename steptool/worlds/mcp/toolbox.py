"""The tools of an MCP server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from mcp import MCPError
from mcp.types import CONNECTION_CLOSED, REQUEST_TIMEOUT

from steptool.core.errors import InputError, WorldError
from steptool.core.types import Frozen, Observation, Tool, ToolCall
from steptool.system.own_loop import OwnLoop
from steptool.worlds.mcp.place import Place
from steptool.worlds.mcp.reply import observation_of
from steptool.worlds.mcp.server import CALL_S, FAULTS, Server
from steptool.worlds.project.arguments import ArgumentsOfTools, without_foreign_patterns
from steptool.worlds.project.session import failure


class Listed(Frozen):
    """A tool as its server lists it."""

    tool: Tool
    only_reads: bool
    """What its annotation readOnlyHint says; False where it has none."""


def list_tools(place: Place) -> list[Listed]:
    """The tools of a server, which is started for it. Raises InputError where it cannot be, or has none."""

    async def listed() -> list[Listed]:
        server = Server(place)
        try:
            return [
                Listed(
                    tool=Tool(
                        name=tool.name,
                        description=" ".join((tool.description or tool.title or tool.name).split()),
                        parameters=without_foreign_patterns(tool.input_schema),
                    ),
                    only_reads=bool(tool.annotations and tool.annotations.read_only_hint),
                )
                for tool in await server.tools()
            ]
        finally:
            await server.close()

    loop = OwnLoop("mcp listing")
    try:
        return loop.wait(listed())
    except WorldError as error:
        raise InputError(error.found, where=error.where, fix=error.fix) from None
    except FAULTS as fault:
        found = f"its tools cannot be listed: {place.secrets.reason(fault)}"
        raise InputError(found, where=str(place), fix="start the server by hand to see why") from None
    finally:
        loop.close()


class McpToolbox:
    """Raises InputError for tools that cannot be called. `shared`: whether all attempts use one connection; auto where
    every tool only reads."""

    def __init__(self, place: Place, listed: Sequence[Listed], shared: Literal["auto"] | bool = "auto") -> None:
        if not listed:
            raise InputError("has no tools", where=str(place), fix="let it offer one")
        self._reading = {each.tool.name: each.only_reads for each in listed}
        if len(self._reading) < len(listed):
            names = [each.tool.name for each in listed]
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"has two tools of the name {twice!r}", where=str(place), fix="rename one of them")
        self.tools: Mapping[str, Tool] = {each.tool.name: each.tool for each in listed}
        self._arguments = ArgumentsOfTools(self.tools, str(place))
        self._place = place
        self._loop = OwnLoop("mcp")
        is_shared = all(self._reading.values()) if shared == "auto" else shared
        self._shared = Server(place) if is_shared else None

    def changes_state(self, name: str) -> bool:
        return not self._reading[name]

    def connect(self) -> McpConnection:
        server = self._shared or Server(self._place)
        return McpConnection(server, server is not self._shared, self._loop, self._arguments, self._place)

    def close(self) -> None:
        """End all connections: they live on the toolbox's loop."""
        self._loop.close()


class McpConnection:
    def __init__(self, server: Server, is_own: bool, loop: OwnLoop, arguments: ArgumentsOfTools, place: Place) -> None:
        self._server, self._is_own, self._loop = server, is_own, loop
        self._arguments, self._secrets = arguments, place.secrets
        self._is_waiting = False
        """Stays where a call is cancelled: an attempt makes one call after the other."""

    async def call(self, call: ToolCall) -> Observation:
        if problem := self._arguments.problem(call):
            return failure("invalid_argument", problem)
        is_doubtful, self._is_waiting = self._is_waiting, True
        try:
            work = self._server.call(call.name, call.arguments, is_doubtful=is_doubtful)
            seen = observation_of(await self._loop.run(work), self._secrets)
        except FAULTS as fault:
            seen = self._failure(fault)
        self._is_waiting = False
        return seen

    async def close(self) -> None:
        if self._is_own and self._server.is_started:
            await self._loop.run(self._server.close())

    def _failure(self, fault: BaseException) -> Observation:
        code = fault.code if isinstance(fault, MCPError) else None
        if code == CONNECTION_CLOSED:
            words = self._server.last_words
            said = "the server ended in this call" + (f", and wrote: {words[-300:]}" if words else "")
            return failure("server_died", self._secrets.hide(said))
        if code == REQUEST_TIMEOUT:
            return failure("timeout", f"no reply within {CALL_S:g} s")
        return failure("broken_reply" if code is None else "tool_error", self._secrets.reason(fault))

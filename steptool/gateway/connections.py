"""The connections of the gateway, kept few and short where a client does nothing with them.

An agent may open any number, send half of a request, or never read an answer: it holds up its own attempt at most. A
connection without a request ends after IDLE_S; where there are too many, the one that has been idle longest makes room.
Those of an attempt end with it.
"""

from __future__ import annotations

import asyncio
import resource
import time
from typing import Any

from starlette.datastructures import Address
from uvicorn.protocols.http.h11_impl import H11Protocol


class _Connection(H11Protocol):
    """uvicorn's, with what `Connections` must know."""

    key = ""
    """Of the attempt that has used it."""
    idle_since: float | None = None
    """None while a request is being answered."""
    registry: Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.idle_since = time.monotonic()
        self.registry.made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.registry.lost(self)

    def on_response_complete(self) -> None:
        self.idle_since = time.monotonic()
        super().on_response_complete()

    def end(self) -> None:
        """Close it as a client expects of one that is idle; what it does not read is lost."""
        is_idle = self.idle_since is not None and not self.transport.get_write_buffer_size()
        (self.transport.close if is_idle else self.transport.abort)()


class Connections:
    IDLE_S = 60.0
    """How long a connection may be open without a whole head of a request."""
    WATCH_S = 1.0

    def __init__(self) -> None:
        self.most = max(64, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        """Of the files that this process may open, most are for others."""
        self._open: dict[tuple[str, int], _Connection] = {}

    def protocol(self, *arguments: Any, **options: Any) -> _Connection:
        connection = _Connection(*arguments, **options)
        connection.registry = self
        return connection

    def made(self, connection: _Connection) -> None:
        if len(self._open) >= self.most:
            idle = [each for each in self._open.values() if each.idle_since is not None]
            if not idle:
                connection.transport.abort()
                return
            idlest = min(idle, key=lambda each: each.idle_since or 0.0)
            self.lost(idlest)  # now, for its end is told later, and several may be made until then
            idlest.end()
        if connection.client is not None:
            self._open[connection.client] = connection

    def lost(self, connection: _Connection) -> None:
        if connection.client is not None and self._open.get(connection.client) is connection:
            del self._open[connection.client]

    def belongs(self, client: Address | None, key: str) -> None:
        """A request with this key came from `client`."""
        connection = self._open.get((client.host, client.port)) if client else None
        if connection is not None:
            connection.key, connection.idle_since = key, None

    def drop(self, key: str) -> None:
        """End the connections of an attempt."""
        for connection in list(self._open.values()):
            if connection.key == key:
                connection.end()

    async def watch(self) -> None:
        """End what is idle for too long, again and again."""
        while True:
            await asyncio.sleep(self.WATCH_S)
            latest = time.monotonic() - self.IDLE_S
            for connection in list(self._open.values()):
                if connection.idle_since is not None and connection.idle_since < latest:
                    connection.end()

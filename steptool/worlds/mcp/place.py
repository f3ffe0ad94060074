"""Where an MCP server is, and the transport to it: a command that speaks over stdin and stdout, or an address."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2
import mcp.client.stdio
from anyio.streams.text import TextReceiveStream
from mcp import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from steptool.core.secrets import Secrets

LAST_WORDS = 2000
"""Bytes that are kept of what a server wrote to stderr: the rest of it floods nothing."""
LONGEST_LINE = 256 * 1024 * 1024
"""Characters of one message over stdio."""
TIMEOUT = httpx2.Timeout(30.0, read=300.0)
"""Seconds. A server may keep the stream of a reply open for as long as its tool runs."""


Variables = tuple[tuple[str, str], ...]
"""What the server calls a secret, and the environment variable that holds it here."""


class LastWords(asyncio.Protocol):
    """The end of what a server wrote to stderr."""

    def __init__(self) -> None:
        self._kept = b""

    def data_received(self, data: bytes) -> None:
        self._kept = (self._kept + data)[-LAST_WORDS:]

    def __str__(self) -> str:
        return " ".join(self._kept.decode("utf-8", "replace").split())


class WholeLines(TextReceiveStream):
    """What a server writes to stdout, in pieces that end with a line or behind one.

    The SDK looks for the end of a line in all that has come since the last one, for each 64 KiB anew: a reply of 50 MB
    took it minutes. A line without end raises BrokenResourceError, which ends the connection.
    """

    async def receive(self) -> str:
        parts = [await super().receive()]
        size = len(parts[0])
        while "\n" not in parts[-1]:
            if size > LONGEST_LINE:
                raise anyio.BrokenResourceError(f"the server wrote a line of more than {LONGEST_LINE:,} characters")
            parts.append(await super().receive())
            size += len(parts[-1])
        return "".join(parts)


mcp.client.stdio.TextReceiveStream = WholeLines  # type: ignore[attr-defined]  # it takes no other reader


@dataclass(frozen=True)
class Place:
    """`env` goes to a command, `headers` to an address."""

    command: tuple[str, ...] = ()
    url: str | None = None
    env: Variables = ()
    headers: Variables = ()
    secrets: Secrets = field(default_factory=Secrets, compare=False)

    def __str__(self) -> str:
        return self.url or " ".join(self.command)

    async def transport(self, stack: AsyncExitStack, words: LastWords) -> Any:
        """An SDK transport that has not begun. `stack` closes what it needs beside it.

        Raises WorldError where a variable is not set.
        """
        if self.url is not None:
            client = httpx2.AsyncClient(headers=self._read(self.headers), timeout=TIMEOUT)
            return streamable_http_client(self.url, http_client=await stack.enter_async_context(client))
        ours, theirs = os.pipe()
        reading, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: words, os.fdopen(ours, "rb"))
        stack.callback(reading.close)
        errlog = stack.enter_context(os.fdopen(theirs, "w"))
        program, *arguments = self.command
        return stdio_client(
            StdioServerParameters(
                command=program, args=arguments, env=self._read(self.env), encoding_error_handler="replace"
            ),
            errlog=errlog,
        )

    def _read(self, variables: Variables) -> dict[str, str]:
        return {name: self.secrets.read(variable, str(self)) for name, variable in variables}

"""An MCP server for the tests of the world `mcp`, that behaves well and badly. `python mcp_server.py [MODE]`"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any, Literal

from mcp.server.mcpserver import Image, MCPServer
from mcp.types import ToolAnnotations

mode = sys.argv[1] if len(sys.argv) > 1 else ""
server = MCPServer("counter")
counted = 0
READS = ToolAnnotations(read_only_hint=True)

if mode == "loud":
    print("hello, this is no JSON", flush=True)
    print("x" * 1_000_000, file=sys.stderr, flush=True)
if mode == "dead":
    print("cannot find the database with key", os.environ.get("KEY"), file=sys.stderr, flush=True)
    sys.exit(3)
if mode == "slow":
    time.sleep(1.5)
if mode == "deaf":
    time.sleep(600)


@server.tool(annotations=READS)
def add(a: int, b: int = 1, kind: Literal["plain", "twice"] = "plain") -> int:
    """Add two
    numbers."""
    return (a + b) * (2 if kind == "twice" else 1)


@server.tool(annotations=READS)
def fail(text: str) -> str:
    """Fail."""
    raise LookupError(f"no {text}")


@server.tool(annotations=READS, structured_output=False)
def picture() -> list[Any]:
    """A picture."""
    return ["seen", Image(data=b"\x89PNG" + b"\0" * 96, format="png")]


@server.tool(annotations=READS)
def environment() -> dict[str, str]:
    """What it is started with."""
    return dict(os.environ)


@server.tool(annotations=READS)
async def misbehave(how: str) -> str:
    """Break something."""
    if how == "exit":
        print("ate the password", os.environ.get("KEY"), file=sys.stderr, flush=True)
        os._exit(7)
    if how == "hang":
        time.sleep(600)  # blocks the whole server
    if how == "wait":
        await asyncio.sleep(30)
    if how == "print":
        print("garbage\n{}\n[1]", flush=True)
    if how == "flood":
        return "0123456789" * 5_000_000
    if how == "errors":
        print("x" * 10_000_000, file=sys.stderr, flush=True)
    return f"did {how}"


if mode != "reading":

    @server.tool()
    def count() -> dict[str, int]:
        """Count the calls."""
        global counted
        counted += 1
        return {"count": counted, "pid": os.getpid()}


if __name__ == "__main__":
    server.run("stdio")

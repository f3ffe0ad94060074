"""How many recorded replies a second does the virtual API server give, and how long does a call wait?

    python -m benchmarks.virtual_server                        a small folder that it makes, 64 trajectories, 10 s
    python -m benchmarks.virtual_server --folder PACK          the calls that this pack has recorded

The server is `steptool serve-tools` in a process of its own. Each trajectory has one connection, and makes its next
call when the last is replied. Client and server share the machine's cores, which counts against the server.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil  # type: ignore[import-untyped]
import typer

from benchmarks import run as command
from steptool.worlds.toolbench import pack

HOST = "127.0.0.1"
WARM_S = 1.0
"""Before anything is counted."""


@dataclass(frozen=True)
class Speed:
    replies: int
    seconds: float
    median_s: float
    p99_s: float
    cpu_s: float
    """That the server used for one reply."""

    def __str__(self) -> str:
        return (
            f"{self.replies / self.seconds:.0f} replies/s, median {1000 * self.median_s:.1f} ms, "
            f"p99 {1000 * self.p99_s:.1f} ms; the server used {1000 * self.cpu_s:.2f} ms of CPU a reply"
        )


def main(
    folder: Annotated[Path | None, typer.Option(help="A pack; by default a small one is made.")] = None,
    in_flight: Annotated[int, typer.Option(help="Trajectories at the same time.")] = 64,
    seconds: Annotated[float, typer.Option(help="How long they call.")] = 10.0,
) -> None:
    """Prints replies a second, and the median and the 99th percentile of the wait."""
    cores = len(os.sched_getaffinity(0))
    print(f"{in_flight} in flight, {cores} core{'s' * (cores > 1)} for both: {measure(folder, in_flight, seconds)}")


def measure(folder: Path | None, in_flight: int, seconds: float) -> Speed:
    with tempfile.TemporaryDirectory() as made:
        calls = recorded_calls(folder) if folder else make_pack(Path(made))
        with serving(folder or Path(made), Path(made) / "kept.db") as (port, used_s):
            before = used_s()
            waits = sorted(asyncio.run(load(port, calls, in_flight, seconds)))
            used = (used_s() - before) * seconds / (seconds + WARM_S)
    return Speed(len(waits), seconds, waits[len(waits) // 2], waits[int(len(waits) * 0.99)], used / len(waits))


def make_pack(folder: Path, functions: int = 50, calls: int = 20) -> list[dict[str, Any]]:
    """Writes replies of 1,000 characters, and returns the calls that get them."""
    rows, bodies = [], []
    for function, number in itertools.product(range(functions), range(calls)):
        arguments = {"city": f"city {number}", "page": number}
        text = json.dumps({"error": "", "response": {"name": f"{function}-{number}", "text": "x" * 960}})
        of_tool = {"name": f"find_{function}_for_shop", "category": "Data", "tool": "Shop"}
        replies = [{"text": text, "error": "none"}]
        rows.append({**of_tool, "arguments": json.dumps(arguments), "responses": replies})
        bodies.append(body_of("Data", "shop", f"find_{function}", arguments))
    with gzip.open(folder / pack.REPLIES, "wt", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    return bodies


def recorded_calls(folder: Path) -> list[dict[str, Any]]:
    return [body_of(*api, recorded.arguments) for api, _, recorded in pack.recordings(folder / pack.REPLIES)]


def body_of(category: str, tool: str, name: str, arguments: Any) -> dict[str, Any]:
    called = {"category": category, "tool_name": tool, "api_name": name, "tool_input": json.dumps(arguments)}
    return {**called, "strip": "", "toolbench_key": ""}


@contextmanager
def serving(folder: Path, kept: Path) -> Iterator[tuple[int, Callable[[], float]]]:
    """The port of a server over the folder, and what tells how many seconds of CPU it has used."""
    started = [sys.executable, "-m", "steptool.cli", "serve-tools", str(folder), "--port", "0", "--kept", str(kept)]
    server = subprocess.Popen(started, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert server.stdout is not None
    try:
        said = server.stdout.readline()
        found = re.match(rf"http://{HOST}:(\d+)/", said)
        if not found:
            raise RuntimeError(f"the server did not start: {said!r}")
        process = psutil.Process(server.pid)
        yield int(found[1]), lambda: sum(process.cpu_times()[:2])
    finally:
        server.terminate()
        server.wait(timeout=30)


async def load(port: int, calls: Sequence[dict[str, Any]], in_flight: int, seconds: float) -> list[float]:
    """How long each call waited, in seconds, WARM_S after the start."""
    texts = [request_of(body) for body in calls]
    begins = time.perf_counter() + WARM_S
    each = [trajectory(port, texts, start, begins, begins + seconds) for start in range(in_flight)]
    return [wait for waits in await asyncio.gather(*each) for wait in waits]


async def trajectory(port: int, texts: Sequence[bytes], start: int, begins: float, ends: float) -> list[float]:
    reader, writer = await asyncio.open_connection(HOST, port)
    waits = []
    for number in itertools.count(start * 7919):
        sent = time.perf_counter()
        if sent >= ends:
            break
        writer.write(texts[number % len(texts)])
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if not head.startswith(b"HTTP/1.1 200") or length is None or b"x-reply-source: exact" not in head:
            raise RuntimeError(f"no recorded reply: {head!r}")
        await reader.readexactly(int(length[1]))
        if sent >= begins:
            waits.append(time.perf_counter() - sent)
    writer.close()
    return waits


def request_of(body: dict[str, Any]) -> bytes:
    text = json.dumps(body).encode()
    head = f"POST /virtual HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text


if __name__ == "__main__":
    command(main)

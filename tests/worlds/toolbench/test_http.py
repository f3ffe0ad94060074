"""The world `http` against our own server, and against servers that fail."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from steptool.core.errors import WorldError
from steptool.core.plugins import revision_of
from steptool.core.types import Observation, ToolCall
from steptool.worlds.toolbench.http import MOST_BYTES, HttpWorld
from steptool.worlds.toolbench.replies import Source, read_mix
from steptool.worlds.toolbench.world import ToolBenchWorld
from tests.worlds.toolbench.folders import make_pack, make_stable
from tests.worlds.toolbench.test_server import desk, serving

FIND, COUNT = "find_for_my_tool", "count_all_for_my_tool"
MADE = [(FIND, {"key": "A 1"}), (FIND, {"key": "a 1"}), (FIND, {"key": "X"}), (COUNT, {}), ("search", {})]


def opened(folder: Path, url: str, **more: Any) -> HttpWorld:
    return HttpWorld(HttpWorld.Config.model_validate({"path": str(folder), "url": url, **more}), seed=0)


def attempt(world: HttpWorld | ToolBenchWorld, calls: list[Any]) -> tuple[list[Observation], dict[Source, int]]:
    async def made() -> tuple[list[Observation], dict[Source, int]]:
        session = world.open(world.tasks("test")[0], seed=0)
        seen = [await session.call(ToolCall(name=name, arguments=arguments)) for name, arguments in calls]
        return seen, read_mix((await session.close(None)).evidence)

    try:
        return asyncio.run(made())
    finally:
        world.end()


@pytest.mark.parametrize("make", [make_pack, make_stable])
def test_through_a_server_calls_get_what_they_get_without_one(make: Any, tmp_path: Path) -> None:
    folder = make(tmp_path / "data")
    with serving(desk(folder)) as url:
        through = attempt(opened(folder, f"{url}/virtual"), MADE)
    settings = {"path": str(folder), "kept": str(tmp_path / "kept.db"), "nearest": 1.0}
    direct = attempt(ToolBenchWorld(ToolBenchWorld.Config.model_validate(settings), seed=0), MADE)
    assert through == direct
    assert through[1] == {"exact": 2, "canonical": 1, "missing": 2}


@contextmanager
def replying(status: int, body: bytes, wait: Event | None = None) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that always replies so, and what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            if wait is not None:
                wait.wait(10)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/virtual", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "error", "text"),
    [
        (200, b'{"error": "", "response": "r"}', None, '{"error": "", "response": "r"}'),
        (200, b'{"error": "Unauthorized error...", "response": "r"}', "hard", None),
        (200, b'{"error": "", "response": ""}', "empty", None),
        (500, b"{}", "http_500", '{"error": "request invalid, data error. status_code=500", "response": ""}'),
        (307, b"", "http_307", None),
        (200, b"<html>", "broken_reply", '{"error": "request invalid, data error", "response": ""}'),
        (200, b"[1]", "broken_reply", None),
        (200, b"[" * 100_000, "broken_reply", None),
        (200, b" " * (MOST_BYTES + 1), "broken_reply", None),
        (200, b'{"error": "", "response": 1e999}', None, None),
    ],
)
def test_what_a_server_says_becomes_what_its_own_client_shows(
    status: int, body: bytes, error: str | None, text: str | None, tmp_path: Path
) -> None:
    folder = make_pack(tmp_path / "data")
    with replying(status, body) as (url, asked):
        (seen,), sources = attempt(opened(folder, url), MADE[:1])
    assert seen.error == error
    assert text is None or seen.text == text
    assert sources == ({"missing": 1} if error in ("broken_reply", f"http_{status}") else {"server": 1})
    called = {"category": "Video_Images", "tool_name": "my_tool", "api_name": "find", "tool_input": {"key": "A 1"}}
    assert asked == [{**called, "strip": "truncate", "toolbench_key": ""}]


def test_a_server_that_takes_too_long_is_a_timeout(tmp_path: Path) -> None:
    folder, goes_on = make_pack(tmp_path / "data"), Event()
    with replying(200, b"{}", goes_on) as (url, _):
        (seen,), _ = attempt(opened(folder, url, timeout_s=0.2), MADE[:1])
        goes_on.set()
    assert (seen.text, seen.error) == ('{"error": "Timeout error...", "response": ""}', "timeout")


def test_a_server_that_is_not_there_breaks_the_attempt(tmp_path: Path) -> None:
    folder = make_pack(tmp_path / "data")
    with pytest.raises(WorldError, match="serve-tools"):
        attempt(opened(folder, "http://127.0.0.1:9/virtual"), MADE[:1])


def test_a_key_is_sent_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, key = make_pack(tmp_path / "data"), "tb-0123456789abcdef"
    monkeypatch.setenv("TOOLBENCH_KEY", key)
    with replying(200, json.dumps({"error": "", "response": f"you sent {key}"}).encode()) as (url, asked):
        (seen,), _ = attempt(opened(folder, url, key="TOOLBENCH_KEY"), MADE[:1])
    assert asked[0]["toolbench_key"] == key
    assert key not in seen.text
    monkeypatch.delenv("TOOLBENCH_KEY")
    with pytest.raises(WorldError, match="TOOLBENCH_KEY"):
        opened(folder, "http://127.0.0.1:9", key="TOOLBENCH_KEY")


def test_the_revision_follows_the_address(tmp_path: Path) -> None:
    folder = make_pack(tmp_path / "data")
    first, second = opened(folder, "http://127.0.0.1:9/virtual"), opened(folder, "http://127.0.0.1:10/virtual")
    assert revision_of(first).name == "http"
    assert revision_of(first) != revision_of(second)

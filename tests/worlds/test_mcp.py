"""A world of an MCP server's tools, called for real: servers over stdio and HTTP, that behave well and badly.

shared      one process, whose state all attempts see
not shared  a process for each attempt; it ends with the attempt
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from mcp.server.mcpserver import Context, MCPServer
from starlette.responses import PlainTextResponse

from steptool.core.errors import InputError, WorldError
from steptool.core.plugins import revision_of
from steptool.core.types import Observation, Tool, ToolCall
from steptool.rollouts.guard import GuardedSession
from steptool.worlds.checks import check_tasks
from steptool.worlds.mcp import McpWorld
from steptool.worlds.mcp.place import Place, WholeLines
from steptool.worlds.mcp.reply import LONGEST
from steptool.worlds.mcp.toolbox import Listed, McpConnection, McpToolbox, list_tools
from steptool.worlds.mcp.world import _listed
from tests.worlds.openapi_service import serving

SERVER = Path(__file__).with_name("mcp_server.py")
SECRET = "s3cr3t of mine"


def place(*modes: str, **more: Any) -> Place:
    return Place((sys.executable, str(SERVER), *modes), **more)


@pytest.fixture(scope="module")
def listed() -> list[Listed]:
    return list_tools(place())


@pytest.fixture
def toolbox(listed: list[Listed], monkeypatch: pytest.MonkeyPatch) -> Iterator[McpToolbox]:
    monkeypatch.setenv("MY_KEY", SECRET)
    made = McpToolbox(place(env=(("KEY", "MY_KEY"),)), listed)
    yield made
    made.close()
    made.close()
    assert servers() == []


def servers() -> list[int]:
    """The processes of servers that this test has started and that have not ended."""
    children = psutil.Process().children(recursive=True)
    return [
        child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE and str(SERVER) in child.cmdline()
    ]


async def call(connection: McpConnection, name: str, /, **arguments: Any) -> Observation:
    return await connection.call(ToolCall(name=name, arguments=arguments))


def calls(toolbox: McpToolbox, *wanted: tuple[str, dict[str, Any]]) -> list[Observation]:
    """In one attempt."""

    async def attempt() -> list[Observation]:
        connection = toolbox.connect()
        try:
            return [await call(connection, name, **arguments) for name, arguments in wanted]
        finally:
            await connection.close()

    return asyncio.run(attempt())


def count_of(seen: Observation) -> int:
    assert seen.error is None, seen
    return int(json.loads(seen.text)["count"])


# Tools


def test_tools_are_listed_with_their_schemas_whole(listed: list[Listed]) -> None:
    assert [each.tool.name for each in listed] == ["add", "fail", "picture", "environment", "misbehave", "count"]
    assert [each.only_reads for each in listed] == [True] * 5 + [False]
    assert listed[0].tool.description == "Add two numbers."
    assert listed[0].tool.parameters["properties"]["kind"]["enum"] == ["plain", "twice"]
    assert listed[0].tool.parameters["required"] == ["a"]


def test_all_pages_of_a_listing_are_read(tmp_path: Path) -> None:
    """Two tools a page; the last page names a page that was read already."""
    server = tmp_path / "pages.py"
    server.write_text(PAGES)
    found = list_tools(Place((sys.executable, str(server))))
    assert [each.tool.name for each in found] == ["t0", "t1", "t2", "t3", "t4"]


PAGES = """
import asyncio
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.types import ListToolsResult, Tool
async def listing(context, params):
    first = int(params.cursor or 0) if params else 0
    tools = [Tool(name=f"t{n}", input_schema={"type": "object"}) for n in range(first, min(first + 2, 5))]
    return ListToolsResult(tools=tools, next_cursor=str(first + 2) if first < 4 else "2")
async def main():
    server = Server("pages", on_list_tools=listing)
    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())
asyncio.run(main())
"""


def test_tools_that_cannot_be_called_are_refused() -> None:
    def box(*tools: Tool) -> McpToolbox:
        return McpToolbox(place(), [Listed(tool=tool, only_reads=True) for tool in tools])

    good = Tool(name="a", description="", parameters={"type": "object"})
    with pytest.raises(InputError, match="has no tools"):
        box()
    with pytest.raises(InputError, match="has two tools of the name 'a'"):
        box(good, good)
    bad = Tool(name="b", description="", parameters={"type": "object", "properties": {"x": {"type": 7}}})
    with pytest.raises(InputError, match="tool 'b' has parameters that are no JSON schema"):
        calls(box(good, bad), ("b", {}))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("no-such-program",), "No such file or directory"),
        (("true",), "Connection closed"),
        (("echo", "hello"), "Connection closed"),
        ((sys.executable, str(SERVER), "dead"), "it wrote: cannot find the database with key [MY_KEY]"),
    ],
)
def test_a_server_that_does_not_start_is_named_with_what_it_wrote(
    command: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    with pytest.raises(InputError) as caught:
        list_tools(Place(command, env=(("KEY", "MY_KEY"),)))
    assert caught.value.where == " ".join(command)
    assert caught.value.found.startswith("the MCP server cannot be started: ")
    assert said in caught.value.found
    assert SECRET not in str(caught.value)


@pytest.mark.slow
def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steptool.worlds.mcp.server.START_S", 1.0)
    with pytest.raises(InputError, match="no reply within 1 s"):
        list_tools(place("deaf"))
    assert servers() == []


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(InputError, match="NOT_SET is not set"):
        list_tools(place(env=(("KEY", "NOT_SET"),)))


def test_an_address_where_nothing_is_is_named() -> None:
    with pytest.raises(InputError, match=r"http://127.0.0.1:9/mcp: the MCP server cannot be started: .*failed"):
        list_tools(Place(url="http://127.0.0.1:9/mcp"))


def test_a_server_that_prints_floods_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """A megabyte to stderr, and lines that are no JSON to stdout."""
    assert len(list_tools(place("loud"))) == 6
    assert capfd.readouterr() == ("", "")


# Calls


def test_calls_reply_with_text(toolbox: McpToolbox) -> None:
    added, wrong, picture, failed = calls(
        toolbox, ("add", {"a": 1, "kind": "twice"}), ("add", {"a": "x"}), ("picture", {}), ("fail", {"text": "book"})
    )
    assert added == Observation(text="4")
    assert wrong == Observation(text='{"error": "a: \\"x\\" is not of type \'integer\'"}', error="invalid_argument")
    assert picture == Observation(text="seen\n(image/png, 100 bytes, not shown)")
    assert failed.error == "tool_error"


def test_structured_content_is_written_without_spaces(toolbox: McpToolbox) -> None:
    (seen,) = calls(toolbox, ("count", {}))
    assert seen.text.startswith('{"count": 1, "pid": ')


def test_a_server_gets_the_variables_that_it_is_given_and_no_others(toolbox: McpToolbox) -> None:
    (seen,) = calls(toolbox, ("environment", {}))
    found = json.loads(seen.text)
    assert found["KEY"] == "[MY_KEY]"
    assert "MY_KEY" not in found
    assert SECRET not in seen.text


def test_each_attempt_has_its_state_and_it_lasts_over_event_loops(toolbox: McpToolbox) -> None:
    assert [count_of(seen) for seen in calls(toolbox, ("count", {}), ("count", {}))] == [1, 2]
    assert [count_of(seen) for seen in calls(toolbox, ("count", {}))] == [1]
    assert servers() == []
    connection = toolbox.connect()
    assert [count_of(asyncio.run(call(connection, "count"))) for _ in range(3)] == [1, 2, 3]
    assert len(servers()) == 1


def test_nothing_starts_before_the_first_call(toolbox: McpToolbox) -> None:
    connection = toolbox.connect()
    assert asyncio.run(call(connection, "add", a="x")).error == "invalid_argument"
    asyncio.run(connection.close())
    assert servers() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "setting", "is_shared"), [("", "auto", False), ("reading", "auto", True), ("", True, True)]
)
def test_a_server_is_shared_where_all_its_tools_only_read(mode: str, setting: Any, is_shared: bool) -> None:
    where = place(mode)
    toolbox = McpToolbox(where, list_tools(where), setting)

    async def attempts() -> int:
        connections = [toolbox.connect() for _ in range(3)]
        await asyncio.gather(*(call(each, "add", a=1) for each in connections))
        running = len(servers())
        for each in connections:
            await each.close()
        return running

    assert asyncio.run(attempts()) == (1 if is_shared else 3)
    assert len(servers()) == (1 if is_shared else 0)
    toolbox.close()
    assert servers() == []


def test_what_changes_state_is_what_does_not_say_that_it_only_reads(toolbox: McpToolbox) -> None:
    assert [name for name in toolbox.tools if toolbox.changes_state(name)] == ["count"]


# What goes wrong


def test_a_server_that_dies_in_a_call_costs_one_call(toolbox: McpToolbox) -> None:
    counted, died, again = calls(toolbox, ("count", {}), ("misbehave", {"how": "exit"}), ("count", {}))
    assert count_of(counted) == 1
    assert died.error == "server_died"
    assert "the server ended in this call" in died.text
    assert SECRET not in died.text
    assert count_of(again) == 1


def test_a_server_that_is_killed_between_calls_is_started_again(toolbox: McpToolbox) -> None:
    async def attempt() -> list[Observation]:
        connection = toolbox.connect()
        seen = [await call(connection, "count")]
        os.kill(servers()[0], signal.SIGKILL)
        await asyncio.sleep(0.2)
        seen += [await call(connection, "count"), await call(connection, "count")]
        await connection.close()
        return seen

    first, lost, again = asyncio.run(attempt())
    assert count_of(first) == 1
    assert lost.error == "server_died"
    assert count_of(again) == 1


@pytest.mark.slow
def test_all_attempts_of_a_shared_server_survive_its_death() -> None:
    where = place("reading")
    toolbox = McpToolbox(where, list_tools(where))

    async def attempts() -> list[list[Observation]]:
        connections = [toolbox.connect() for _ in range(4)]
        ways = ["exit", "nothing", "nothing", "nothing"]
        await call(connections[0], "add", a=1)
        first = await asyncio.gather(
            *(call(each, "misbehave", how=how) for each, how in zip(connections, ways, strict=True))
        )
        second = await asyncio.gather(*(call(each, "add", a=1) for each in connections))
        return [first, second]

    first, second = asyncio.run(attempts())
    assert first[0].error == "server_died"
    assert {seen.error for seen in first} <= {None, "server_died"}
    assert [seen.text for seen in second] == ["2"] * 4
    assert len(servers()) == 1
    toolbox.close()
    assert servers() == []


@pytest.mark.slow
def test_a_tool_that_hangs_costs_one_call(world: McpWorld) -> None:
    """It blocks its server, which is ended; the next call starts another one."""
    session = GuardedSession(world.open(world.tasks("train")[0], 0), timeout_s=30.0, most=100)
    impatient = GuardedSession(session, timeout_s=0.5, most=100)

    async def attempt() -> list[Observation]:
        seen = [await session.call(ToolCall(name="count", arguments={}))]
        seen.append(await impatient.call(ToolCall(name="misbehave", arguments={"how": "hang"})))
        seen.append(await session.call(ToolCall(name="count", arguments={})))
        assert (await session.close("7")).solved == 1
        return seen

    first, hung, again = asyncio.run(attempt())
    assert count_of(first) == 1
    assert hung.error == "timeout"
    assert count_of(again) == 1


def test_a_call_that_is_cancelled_leaves_the_state_of_a_server_that_lives(toolbox: McpToolbox) -> None:
    async def attempt() -> list[Observation]:
        connection = toolbox.connect()
        seen = [await call(connection, "count")]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call(connection, "misbehave", how="wait"), 0.3)
        seen.append(await call(connection, "count"))
        await connection.close()
        return seen

    assert [count_of(seen) for seen in asyncio.run(attempt())] == [1, 2]


def test_a_server_that_starts_slowly_is_waited_for_by_the_next_call(listed: list[Listed]) -> None:
    toolbox = McpToolbox(place("slow"), listed)

    async def attempt() -> tuple[list[int], list[int]]:
        connection = toolbox.connect()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call(connection, "count"), 0.3)
        starting = servers()
        assert count_of(await call(connection, "count")) == 1
        running = servers()
        await connection.close()
        return starting, running

    starting, running = asyncio.run(attempt())
    assert starting == running
    toolbox.close()


def test_an_attempt_may_end_while_its_server_starts(listed: list[Listed]) -> None:
    toolbox = McpToolbox(place("deaf"), listed)

    async def attempt() -> float:
        connection = toolbox.connect()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call(connection, "count"), 0.3)
        started = time.monotonic()
        await connection.close()
        return time.monotonic() - started

    assert asyncio.run(attempt()) < 7
    assert servers() == []
    toolbox.close()


@pytest.mark.parametrize("how", ["print", "errors"])
def test_what_a_server_prints_is_no_reply(toolbox: McpToolbox, how: str, capfd: pytest.CaptureFixture[str]) -> None:
    printed, added = calls(toolbox, ("misbehave", {"how": how}), ("add", {"a": 1}))
    assert (printed.text, added.text) == (f"did {how}", "2")
    assert capfd.readouterr() == ("", "")


def test_a_message_is_put_together_once_however_many_pieces_it_comes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read(*pieces: bytes) -> list[str]:
        write, source = anyio.create_memory_object_stream[bytes](len(pieces))
        for piece in pieces:
            write.send_nowait(piece)
        write.close()
        return [text async for text in WholeLines(source)]

    assert anyio.run(read, b"ab", b"c\nd", b"e", b"\n", b"un", b"finished") == ["abc\nd", "e\n"]
    assert anyio.run(read, "é\n".encode()[:1], "é\n".encode()[1:]) == ["é\n"]
    monkeypatch.setattr("steptool.worlds.mcp.place.LONGEST_LINE", 4)
    with pytest.raises(anyio.BrokenResourceError, match="a line of more than 4 characters"):
        anyio.run(read, b"abc", b"def", b"ghi")


@pytest.mark.slow
def test_a_long_reply_is_cut_and_marked(toolbox: McpToolbox) -> None:
    (seen,) = calls(toolbox, ("misbehave", {"how": "flood"}))
    assert seen.error is None
    assert seen.text.endswith(f" ... (cut: longer than {LONGEST:,} characters)")


def test_a_server_that_cannot_be_started_any_more_breaks_the_attempt(listed: list[Listed]) -> None:
    toolbox = McpToolbox(Place(("no-such-program",)), listed)
    with pytest.raises(WorldError, match="cannot be started"):
        calls(toolbox, ("add", {"a": 1}))
    toolbox.close()


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_server_outlives_the_command(stop: signal.Signals) -> None:
    code = f"""
import asyncio, sys
from steptool.core.types import ToolCall
from steptool.worlds.mcp import McpWorld
from steptool.worlds.mcp.place import Place, WholeLines
from steptool.worlds.mcp.toolbox import McpToolbox, list_tools
place = Place((sys.executable, {str(SERVER)!r}))
toolbox = McpToolbox(place, list_tools(place))
async def main():
    connections = [toolbox.connect() for _ in range(2)]
    for each in connections:
        print((await each.call(ToolCall(name="count", arguments={{}}))).text, flush=True)
    print("ready", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    command = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert command.stdout is not None
    said = [command.stdout.readline() for _ in range(3)]
    assert said[2] == "ready\n"
    running = [psutil.Process(json.loads(line)["pid"]) for line in said[:2]]
    command.send_signal(stop)
    command.wait(20)
    command.stdout.close()
    _, alive = psutil.wait_procs(running, timeout=10)
    assert alive == []


# Streamable HTTP


@pytest.fixture
def http() -> Iterator[str]:
    server = MCPServer("over http")

    @server.tool()
    def add(a: int, b: int = 1) -> int:
        """Add."""
        return a + b

    @server.tool()
    async def key(context: Context) -> str:
        """The header that the client sent."""
        return str(dict(context.request_context.request.headers).get("x-key"))

    app = server.streamable_http_app()
    app.add_route("/html", lambda request: PlainTextResponse("<html>", 200, media_type="text/html"), methods=["POST"])
    app.add_route("/500", lambda request: PlainTextResponse("oh no", 500), methods=["POST"])
    with serving(app) as url:
        yield url


def test_a_server_over_http(http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    where = Place(url=f"{http}/mcp", headers=(("X-Key", "MY_KEY"),))
    toolbox = McpToolbox(where, list_tools(where))
    assert [seen.text for seen in calls(toolbox, ("add", {"a": 1}), ("add", {"a": 2}), ("key", {}))] == [
        "2",
        "3",
        "[MY_KEY]",
    ]
    assert [seen.text for seen in calls(toolbox, ("add", {"a": 3}))] == ["4"]
    toolbox.close()


def test_a_server_over_http_that_is_gone_breaks_the_attempt() -> None:
    server = MCPServer("soon gone")
    server.tool()(twice)

    async def calls_of_one_attempt() -> None:
        with serving(server.streamable_http_app()) as url:
            where = Place(url=f"{url}/mcp")
            toolbox = McpToolbox(where, await asyncio.to_thread(list_tools, where))
            connection = toolbox.connect()
            assert (await call(connection, "twice", a=2)).text == "4"
        assert (await call(connection, "twice", a=2)).error == "server_died"
        with pytest.raises(WorldError, match="cannot be started"):
            await call(connection, "twice", a=2)
        await connection.close()
        toolbox.close()

    asyncio.run(calls_of_one_attempt())


def twice(a: int) -> int:
    """Twice as much."""
    return 2 * a


@pytest.mark.parametrize("path", ["html", "500", "none"])
def test_an_address_that_is_no_mcp_server_is_refused(http: str, path: str) -> None:
    with pytest.raises(InputError, match=rf"{http}/{path}: the MCP server cannot be started"):
        list_tools(Place(url=f"{http}/{path}"))


# The world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[McpWorld]:
    monkeypatch.chdir(tmp_path)
    made = McpWorld(config(tmp_path), 17)
    yield made
    made.toolbox.close()
    _listed.cache_clear()
    assert servers() == []


def config(folder: Path, **settings: Any) -> McpWorld.Config:
    check = {"kind": "text", "expected": "7"}
    lines = [
        {"query": f"Count to {number}.", "split": split, "check": check}
        for number, split in enumerate(["train", "test"])
    ]
    (folder / "tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "server.py").write_text(SERVER.read_text())
    return McpWorld.Config(**(settings or {"command": [sys.executable, str(SERVER)]}))


def test_its_tasks_offer_the_tools(world: McpWorld) -> None:
    splits = {split: world.tasks(split) for split in ("train", "dev", "test")}
    check_tasks(splits, {task.id: world.reference(task) for tasks in splits.values() for task in tasks}, "mcp")
    assert len(splits["train"][0].tools) == 6


def test_its_revision_is_that_of_the_tools_and_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = config(tmp_path, command=[sys.executable, "server.py"])
    world = McpWorld(settings, 17)
    first = revision_of(world)
    assert revision_of(world) == first
    (tmp_path / "server.py").write_text(SERVER.read_text() + "# another\n")
    assert revision_of(world) != first


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"shared": True}, "give either command"),
        ({"command": ["a"], "url": "http://a"}, "give either command"),
        ({"url": "ftp://a"}, "is an address, http"),
        ({"url": "http://ann:secret@a/mcp"}, "holds a name or a password"),
        ({"command": ["a"], "headers": {"X": "Y"}}, "env is for a command, headers are for a url"),
        ({"command": ["a"], "env": {"KEY": "sk-secret"}}, "never write the secret itself"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(tmp_path, **settings)

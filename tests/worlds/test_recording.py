"""Replies that are kept, and replayed in place of the tools.

first attempt    add ──▶ tool, kept     count ──▶ tool, kept
second attempt   add ──▶ kept           count ──▶ kept           no process is started
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from steptool.core.errors import DataError, InputError, StorageError, WorldError
from steptool.core.plugins import revision_of
from steptool.core.types import Observation, Outcome, Tool, ToolCall
from steptool.worlds.functions import FunctionsWorld
from steptool.worlds.project.recording import RecordedConnection, Recordings
from steptool.worlds.project.toolbox import Connection
from steptool.worlds.project.world import Listing, ProjectSettings, recorded_listing
from tests.project import ROOT


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(name=name, arguments=arguments)


class Counter:
    """A toolbox whose `add` changes its state; `replies` come first where there are any, and then the count."""

    def __init__(self, *replies: Observation) -> None:
        self.tools: dict[str, Tool] = {}
        self.replies = list(replies)
        self.asked: list[str] = []
        self.connections = 0

    def changes_state(self, name: str) -> bool:
        return name == "add"

    def connect(self) -> Connection:
        self.connections += 1
        return Counting(self)

    def close(self) -> None: ...


class Counting:
    def __init__(self, counter: Counter) -> None:
        self.counter, self.count = counter, 0

    async def call(self, call: ToolCall) -> Observation:
        self.counter.asked.append(call.name)
        await asyncio.sleep(0.01)
        self.count += call.name == "add"
        return self.counter.replies.pop(0) if self.counter.replies else Observation(text=str(self.count))

    async def close(self) -> None: ...


def attempt(recordings: Recordings, counter: Counter, calls: Sequence[ToolCall], *, only: bool = False) -> list[str]:
    async def run() -> list[str]:
        connection = RecordedConnection(counter, recordings, "counter", only=only)
        seen = [await connection.call(each) for each in calls]
        await connection.close()
        return [each.error or each.text for each in seen]

    return asyncio.run(run())


@pytest.fixture
def recordings(tmp_path: Path) -> Recordings:
    return Recordings(tmp_path / "recordings.db")


ADD, COUNT = call("add"), call("count")


def test_what_was_asked_once_is_not_asked_again(recordings: Recordings) -> None:
    counter = Counter()
    for _ in range(2):
        assert attempt(recordings, counter, [COUNT, ADD, COUNT, ADD, COUNT]) == ["0", "1", "1", "2", "2"]
    assert counter.asked == ["count", "add", "count", "add", "count"]
    assert counter.connections == 1, "an attempt that is replayed connects to nothing"


def test_a_call_that_is_new_meets_the_state_of_the_replayed_ones(recordings: Recordings) -> None:
    attempt(recordings, Counter(), [ADD, COUNT])
    counter = Counter()
    assert attempt(recordings, counter, [ADD, COUNT, ADD, ADD, COUNT]) == ["1", "1", "2", "3", "3"]
    assert counter.asked == ["add", "add", "add", "count"], "the first is made once more, its count is not"


def test_arguments_and_toolboxes_are_told_apart(recordings: Recordings) -> None:
    counter = Counter()
    assert attempt(recordings, counter, [call("count", a=1)]) == ["0"]
    attempt(recordings, counter, [call("count", a=2), call("count", a="1"), call("count", a=[1])])
    assert len(counter.asked) == 4
    other = RecordedConnection(counter, recordings, "another", only=False)
    asyncio.run(other.call(call("count", a=1)))
    assert len(counter.asked) == 5
    assert attempt(recordings, counter, [call("count", b=1, c="\ud800")] * 2) == ["0", "0"]


def test_nothing_is_asked_where_only_recordings_count(recordings: Recordings) -> None:
    attempt(recordings, Counter(), [ADD])
    counter = Counter()
    assert attempt(recordings, counter, [ADD, ADD, COUNT], only=True) == ["1", "no_recording", "no_recording"]
    assert counter.connections == 0


@pytest.mark.parametrize("kind", ["timeout", "crashed", "server_died", "broken_reply", "http_500", "http_429", "html"])
def test_an_error_that_may_pass_is_asked_again(recordings: Recordings, kind: str) -> None:
    counter = Counter(Observation(text="later", error=kind))
    assert attempt(recordings, counter, [COUNT, COUNT]) == [kind, "0"]


def test_other_errors_are_kept(recordings: Recordings) -> None:
    counter = Counter(Observation(text="no such book", error="http_404"))
    assert attempt(recordings, counter, [COUNT, COUNT]) == ["http_404", "http_404"]


def test_a_call_that_fails_and_may_have_changed_something_leads_to_another_state(recordings: Recordings) -> None:
    """A tool that says `try again`, and then works."""
    counter = Counter(Observation(text="try again", error="tool_error"))
    for _ in range(2):
        assert attempt(recordings, counter, [ADD, ADD]) == ["tool_error", "2"]


def test_the_same_call_of_many_attempts_is_made_once(recordings: Recordings) -> None:
    counter = Counter()

    async def one() -> str:
        connection = RecordedConnection(counter, recordings, "counter", only=False)
        return (await connection.call(COUNT)).text

    async def run() -> list[str]:
        return await asyncio.gather(*(one() for _ in range(50)))

    assert asyncio.run(run()) == ["0"] * 50
    assert counter.asked == ["count"]


def test_where_the_one_that_asks_is_cancelled_another_asks(recordings: Recordings) -> None:
    counter = Counter()

    async def run() -> str:
        first, second = (RecordedConnection(counter, recordings, "counter", only=False) for _ in range(2))
        asking = asyncio.create_task(first.call(COUNT))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(second.call(COUNT))
        await asyncio.sleep(0)
        asking.cancel()
        return (await waiting).text

    assert asyncio.run(run()) == "0"
    assert counter.asked == ["count", "count"]


def _records(path: str, number: int) -> None:
    recordings = Recordings(Path(path))
    for each in range(100):
        recordings.keep(f"key {each}", "counter", [], {"name": "count"}, Observation(text=str(number)))


def test_several_processes_write_at_once_and_the_first_reply_stays(tmp_path: Path) -> None:
    path = str(tmp_path / "recordings.db")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_records, args=(path, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    with sqlite3.connect(path) as file:
        assert file.execute("select count(*) from replies").fetchone() == (100,)


KEEPS = """
import sys
from pathlib import Path
from steptool.core.types import Observation
from steptool.worlds.project.recording import Recordings
recordings, number = Recordings(Path(sys.argv[1])), 0
while True:
    recordings.keep(f"key {number}", "counter", [], {}, Observation(text=str(number)))
    print(number, flush=True)
    number += 1
"""


def test_a_killed_process_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "recordings.db"
    process = subprocess.Popen(
        [sys.executable, "-c", KEEPS, str(path)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stdout is not None
    last = max(int(process.stdout.readline()) for _ in range(200))
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    found = Recordings(path)
    assert all(found.find(f"key {number}") == Observation(text=str(number)) for number in range(last + 1))


def test_nothing_is_written_before_something_is_kept(recordings: Recordings, tmp_path: Path) -> None:
    assert recordings.find("a") is None
    assert recordings.listing("a") is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_holds_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recordings.db"
    path.write_text("no database " * 1000)
    with pytest.raises(DataError, match=r"recordings\.db: holds no recordings") as error:
        Recordings(path).find("a")
    assert "world.recordings" in (error.value.fix or "")
    with pytest.raises(StorageError, match="cannot be used"):
        Recordings(tmp_path / "nowhere" / "recordings.db").keep("a", "b", [], {}, Observation(text=""))


def test_replies_cannot_break_out_of_the_statement(recordings: Recordings) -> None:
    text = "'); drop table replies; --"
    attempt(recordings, Counter(Observation(text=text)), [call(text, **{text: text})])
    assert attempt(recordings, Counter(), [call(text, **{text: text})]) == [text]


# Of a world


SHELF = '''
class Shelf:
    def __init__(self) -> None:
        self.books = 0

    def add(self) -> int:
        """Add a book."""
        self.books += 1
        return self.books

def one_book(answer, calls, shelf): return shelf.books == 1
'''
TASKS: list[dict[str, Any]] = [
    {"query": "Well?", "split": "train", "check": "one_book"},
    {"query": "Other?", "split": "test"},
]


def worlds_attempt(world: FunctionsWorld, *calls: ToolCall) -> tuple[list[str], Outcome]:
    async def run() -> tuple[list[str], Outcome]:
        session = world.open(world.tasks("train")[0], seed=0)
        seen = [await session.call(each) for each in calls]
        return [each.error or each.text for each in seen], await session.close("a")

    return asyncio.run(run())


def test_a_world_replays_calls_and_verdicts_without_a_process(make: Any) -> None:
    config = {"module": "tools.py:Shelf", "recordings": "kept.db"}
    first = worlds_attempt(make(SHELF, TASKS, record="auto", **config), ADD)
    assert first == (["1"], Outcome(solved=1.0, evidence="as one_book says"))
    before = psutil.Process().children()
    world = make(SHELF, TASKS, record="only", **config)
    assert worlds_attempt(world, ADD) == first
    assert psutil.Process().children() == before
    with pytest.raises(WorldError, match="no verdict of one_book"):
        worlds_attempt(world, ADD, ADD)


def test_other_code_has_other_recordings(make: Any) -> None:
    config = {"module": "tools.py:Shelf", "record": "auto"}
    assert worlds_attempt(make(SHELF, TASKS, **config), ADD)[0] == ["1"]
    assert worlds_attempt(make(SHELF.replace("+= 1", "+= 2"), TASKS, **config), ADD)[0] == ["2"]


def test_how_replies_are_recorded_is_no_part_of_what_the_world_is(make: Any) -> None:
    revisions = {
        revision_of(make(SHELF, TASKS, module="tools.py:Shelf", record=how)) for how in ("off", "auto", "only")
    }
    assert len(revisions) == 1


def test_a_listing_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = iter(["one tool", "two tools", "three tools"])
    listing = Listing("http://shop", lambda: next(said))
    with pytest.raises(InputError, match="no listing of its tools is recorded"):
        recorded_listing(ProjectSettings(record="only"), listing)
    assert [recorded_listing(ProjectSettings(record="auto"), listing) for _ in range(2)] == ["one tool", "one tool"]
    assert recorded_listing(ProjectSettings(record="only"), listing) == "one tool"
    assert recorded_listing(ProjectSettings(record="off"), listing) == "two tools"

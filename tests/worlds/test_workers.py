"""Tools that misbehave: each costs the call in which it does, the state of the attempt is kept, and no process remains.

add → misbehaves → count        the count is what it was
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from steptool.core.errors import DataError, WorldError
from steptool.core.types import Observation, Outcome, Tool, ToolCall
from steptool.rollouts.guard import GuardedSession
from steptool.worlds.functions import FunctionsWorld
from steptool.worlds.project.world import ProjectSettings, ProjectWorld
from tests.project import ROOT

SHELF = '''
"""A shelf, and what goes wrong at it."""
import asyncio, os, re, signal, subprocess, sys, threading, time
from typing import Any

class Shelf:
    def __init__(self) -> None:
        self.books = 0

    def add(self) -> int:
        """Add a book."""
        self.books += 1
        return self.books

    def count(self) -> int:
        """How many books there are."""
        return self.books

    def sleeps(self) -> str:
        """Blocks."""
        time.sleep(60)
        return "awake"

    async def sleeps_later(self) -> str:
        """Blocks where it may be interrupted."""
        await asyncio.sleep(60)
        return "awake"

    def computes(self) -> int:
        """Blocks where nothing interrupts it."""
        return sum(range(10**12))

    def matches(self) -> bool:
        """Takes for ever to match."""
        return bool(re.match(r"(a+)+$", "a" * 64 + "b"))

    def refuses(self) -> str:
        """Does not end when it is asked to."""
        while True:
            try:
                time.sleep(60)
            except BaseException:
                continue

    def listens(self) -> str:
        """Takes the signals away."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(60)
        return "awake"

    def leaves(self) -> str:
        """Ends its process."""
        os._exit(7)

    def aborts(self) -> str:
        """Ends its process as a library in C does."""
        os.abort()

    def closes_all(self) -> str:
        """Closes whatever is open."""
        os.closerange(0, 100)
        return "closed"

    def forks(self) -> str:
        """Leaves processes behind."""
        for number in range(10):
            if os.fork() == 0:
                os.setsid() if number % 2 else None
                time.sleep(600)
                os._exit(0)
        subprocess.Popen(["sleep", "600"], start_new_session=True)
        return "forked"

    def forks_and_leaves(self) -> str:
        """Leaves processes behind, and ends its own."""
        self.forks()
        os._exit(0)

    def floods(self) -> str:
        """Prints without end."""
        for _ in range(20_000):
            print("x" * 1000)
            print("y" * 1000, file=sys.stderr)
        os.write(1, b"z" * 1_000_000)
        return "flooded"

    def mutes(self) -> str:
        """Closes the standard streams."""
        for number in (0, 1, 2):
            os.close(number)
        sys.stdout.close()
        return "muted"

    def asks(self) -> str:
        """Reads the keyboard."""
        return f"[{sys.stdin.read()}]"

    def eats(self) -> str:
        """Takes all memory."""
        rows = []
        while True:
            rows.append(bytearray(10_000_000))

    def talks(self) -> str:
        """Returns 50 MB."""
        return "\\u00e9" * 25_000_000

    def garbles(self) -> Any:
        """Bytes that are no text."""
        return b"a\\xffb"

    def hides_garble(self) -> Any:
        """Bytes that are no text, inside."""
        return {"rows": [b"\\xff"]}

    def starts_thread(self) -> str:
        """A thread that runs on."""
        threading.Thread(target=lambda: time.sleep(600)).start()
        threading.Thread(target=lambda: time.sleep(600), daemon=True).start()
        return "started"

    async def leaves_task(self) -> str:
        """A task that runs on."""
        self.task = asyncio.ensure_future(asyncio.sleep(600))
        return "started"

    def recurses(self) -> str:
        """Calls itself."""
        return self.recurses()

    async def endless(self) -> Any:
        """Has no end."""
        async def numbers():
            while True: yield 1
        return numbers()

    def nested_endless(self) -> Any:
        """Has no end, further down."""
        def numbers():
            while True: yield 1
        return [numbers()]

def two_books(answer, calls, shelf): return shelf.books == 2
def leaves(answer, calls, shelf): os._exit(9)
def sleeps(answer, calls, shelf): time.sleep(60)
'''
TASKS: list[dict[str, Any]] = [
    {"id": "it", "query": "Well?", "split": "train", "check": "two_books"},
    {"id": "leaves", "query": "Checked how?", "split": "train", "check": "leaves"},
    {"id": "sleeps", "query": "Checked when?", "split": "train", "check": "sleeps"},
    {"query": "Other?", "split": "test"},
]
TIMEOUT_S = 1.5


OTHERS: set[int] = set()
"""Processes of other tests, which were there before this one."""


@pytest.fixture(autouse=True)
def _others() -> None:
    OTHERS.clear()
    OTHERS.update(below())


def below() -> set[int]:
    """Processes that this test has started, and those that they have started."""
    found = psutil.Process().children(recursive=True)
    return {process.pid for process in found if process.status() != "zombie"} - OTHERS


def soon(what: Any) -> bool:
    deadline = time.monotonic() + 10
    while not what() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(what())


def attempt(world: ProjectWorld, *names: str, task: int = 0) -> tuple[list[Observation], Outcome]:
    """Calls of these tools, as a rollout makes them."""

    async def run() -> tuple[list[Observation], Outcome]:
        session = GuardedSession(world.open(world.tasks("train")[task], seed=0), timeout_s=TIMEOUT_S, most=10**6)
        replies = [await session.call(ToolCall(name=name, arguments={})) for name in names]
        return replies, await session.close("a")

    return asyncio.run(run())


@pytest.fixture
def shelf(make: Any) -> FunctionsWorld:
    world: FunctionsWorld = make(SHELF, TASKS, module="tools.py:Shelf", tool_memory_mb=200)
    attempt(world, "count")  # the fork server has imported the module
    return world


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("sleeps", "timeout", "did not answer within 1.5 s"),
        ("sleeps_later", "timeout", "did not answer within 1.5 s"),
        ("computes", "timeout", "did not answer within 1.5 s"),
        ("matches", "timeout", "did not answer within 1.5 s"),
        ("refuses", "timeout", "did not answer within 1.5 s"),
        ("listens", "timeout", "did not answer within 1.5 s"),
        ("leaves", "crashed", "it ended its process with exit status 7"),
        ("aborts", "crashed", "its process was ended by SIGABRT"),
        ("closes_all", "crashed", "process"),  # it exits, or is killed before it does
        ("forks_and_leaves", "crashed", "it ended its process with exit status 0"),
        ("eats", "tool_error", "MemoryError"),
        ("recurses", "tool_error", "RecursionError"),
        ("endless", "tool_error", "a generator was returned"),
        ("hides_garble", "tool_error", "invalid utf-8"),
        ("forks", None, "forked"),
        ("floods", None, "flooded"),
        ("mutes", None, "muted"),
        ("asks", None, "[]"),
        ("garbles", None, "a\ufffdb"),
        ("starts_thread", None, "started"),
        ("leaves_task", None, "started"),
    ],
)
def test_a_tool_that_misbehaves_costs_one_step(shelf: FunctionsWorld, name: str, error: str | None, said: str) -> None:
    before = below()
    (added, observation, counted, again), outcome = attempt(shelf, "add", name, "count", "add")
    assert (observation.error, said in observation.text) == (error, True), observation
    assert [added.text, counted.text, again.text] == ["1", "1", "2"], "the state is kept"
    assert outcome.solved == 1
    assert soon(lambda: below() <= before), "no process remains"


def test_what_has_no_end_inside_ends_with_its_process(shelf: FunctionsWorld) -> None:
    (_, observation, counted), _ = attempt(shelf, "add", "nested_endless", "count")
    assert observation.error in ("timeout", "crashed", "tool_error")
    assert counted.text == "1"


def test_a_long_reply_is_cut_and_says_so(shelf: FunctionsWorld) -> None:
    (talked, counted), _ = attempt(shelf, "talks", "count")
    assert talked.error is None
    assert talked.text.endswith("é... (cut: 50000000 bytes, 262144 are kept)")
    assert len(talked.text.encode()) < 263_000
    assert counted.text == "0"


@pytest.mark.parametrize(("task", "what"), [(1, "exit status 9"), (2, "close did not answer within")])
def test_a_check_that_misbehaves_is_the_worlds_fault(shelf: FunctionsWorld, task: int, what: str) -> None:
    before = below()
    with pytest.raises(WorldError, match=what):
        attempt(shelf, "add", task=task)
    assert soon(lambda: below() <= before)


def test_an_attempt_without_a_call_and_without_a_check_function_starts_no_child(make: Any) -> None:
    before = below()
    world = make(SHELF, module="tools.py:Shelf")
    attempt(world)
    assert len(below() - before) <= 1, "the fork server alone"


def test_many_attempts_at_once(shelf: FunctionsWorld) -> None:
    before = below()

    async def one() -> list[str]:
        session = shelf.open(shelf.tasks("train")[0], seed=0)
        texts = [(await session.call(ToolCall(name="add", arguments={}))).text for _ in range(3)]
        await session.close(None)
        return texts

    async def run() -> list[list[str]]:
        return await asyncio.gather(*(one() for _ in range(128)))

    started = time.monotonic()
    assert asyncio.run(run()) == [["1", "2", "3"]] * 128
    assert time.monotonic() - started < 30
    assert soon(lambda: below() <= before)


def test_an_attempt_that_nobody_closes_ends_with_its_session(shelf: FunctionsWorld) -> None:
    """The call is cancelled, and so is the waiting for its end: Ctrl-C."""

    before = below()

    async def run() -> None:
        session = shelf.open(shelf.tasks("train")[0], seed=0)
        call = asyncio.create_task(session.call(ToolCall(name="refuses", arguments={})))
        for _ in range(2):
            await asyncio.sleep(0.3)
            call.cancel()
        await asyncio.wait([call])

    asyncio.run(run())
    assert soon(lambda: below() <= before)


def test_a_fork_server_that_is_killed_is_started_again(shelf: FunctionsWorld) -> None:
    for pid in below():
        os.kill(pid, signal.SIGKILL)
    assert soon(lambda: not below())
    for _ in range(2):  # that it is gone may show in a first attempt, which a rollout makes again
        try:
            (added,), _ = attempt(shelf, "add")
        except WorldError as error:
            assert error.found == "is gone"  # noqa: PT017
    assert added.text == "1"


DIES = """
import asyncio, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background would ignore it
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, [])
from steptool.core.types import ToolCall
from steptool.worlds.functions import FunctionsWorld
from steptool.worlds.project.world import ProjectSettings, ProjectWorld
world = FunctionsWorld(FunctionsWorld.Config(module="tools.py:Shelf"), 17)

async def run():
    session = world.open(world.tasks("train")[0], seed=0)
    await session.call(ToolCall(name="forks", arguments={}))
    print("ready", flush=True)
    await session.call(ToolCall(name="sleeps", arguments={}))
asyncio.run(run())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_run(make: Any, tmp_path: Path, how: signal.Signals) -> None:
    make(SHELF, TASKS, module="tools.py:Shelf")
    run = subprocess.Popen(
        [sys.executable, "-c", DIES],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == b"ready\n"
    started = psutil.Process(run.pid).children(recursive=True)
    assert len(started) >= 13  # the fork server, the child, ten and one below it
    run.send_signal(how)
    run.wait(20)
    assert soon(lambda: not any(process.is_running() and process.status() != "zombie" for process in started))


def test_prints_of_tools_do_not_reach_the_streams_of_the_run(shelf: FunctionsWorld, capfd: Any) -> None:
    attempt(shelf, "floods")
    assert capfd.readouterr().out == ""


def test_checks_of_a_file_of_their_own(make: Any) -> None:
    Path("checks.py").write_text("def two_more(answer, calls, shelf): return shelf.books == len(calls) == 2\n")
    tasks = [{"query": "Well?", "split": "train", "check": "two_more"}, {"query": "Other?", "split": "test"}]
    world = make(SHELF, tasks, module="tools.py:Shelf", checks="checks.py")
    assert attempt(world, "add", "add")[1] == Outcome(solved=1.0, evidence="as two_more says")
    assert attempt(world, "add")[1].solved == 0
    assert "checks" in FunctionsWorld.modules(world.config)


class Elsewhere:
    """A toolbox whose tools are in no process of ours."""

    def __init__(self) -> None:
        self.tools = {"echo": Tool(name="echo", description="Says it.", parameters={"type": "object"})}

    def changes_state(self, name: str) -> bool:
        return False

    def connect(self) -> Echo:
        return Echo()

    def close(self) -> None: ...


class Echo:
    async def call(self, call: ToolCall) -> Observation:
        return Observation(text=json.dumps(call.arguments))

    async def close(self) -> None: ...


def test_check_functions_beside_tools_that_are_elsewhere(make: Any) -> None:
    make(SHELF, module="tools.py:Shelf")  # a folder of its own
    Path("checks.py").write_text(
        "def said_a(answer, calls, state):\n"
        "    return state is None and answer == 'a' and [call.arguments for call in calls] == [{}]\n"
    )
    Path("tasks.jsonl").write_text(
        '{"query": "Well?", "split": "train", "check": "said_a"}\n{"query": "Other?", "split": "test"}\n'
    )
    world = ProjectWorld(ProjectSettings(checks="checks.py"), 17, Elsewhere())
    before = below()
    assert attempt(world, "echo")[1] == Outcome(solved=1.0, evidence="as said_a says")
    assert attempt(world)[1].solved == 0
    assert soon(lambda: len(below() - before) == 1), "the fork server"
    world.end()
    assert soon(lambda: below() <= before)
    with pytest.raises(DataError, match="there is no function 'said_a'") as error:
        ProjectWorld(ProjectSettings(), 17, Elsewhere())
    assert error.value.fix == "set world.checks to a file in which that function is"


def test_replies_do_not_depend_on_chance(make: Any) -> None:
    """Every attempt begins as a copy of the same process."""
    code = 'import random\ndef throws() -> float:\n    """A number."""\n    return random.random()\n'
    world = make(code)
    assert len({attempt(world, "throws")[0][0].text for _ in range(3)}) == 1


def test_arguments_of_any_size_arrive(make: Any) -> None:
    world = make('def size(text: str) -> int:\n    """Length."""\n    return len(text)\n')

    async def run() -> str:
        session = world.open(world.tasks("train")[0], seed=0)
        reply = await session.call(ToolCall(name="size", arguments={"text": "é" * 3_000_000}))
        await session.close(None)
        return str(reply.text)

    assert json.loads(asyncio.run(run())) == 3_000_000

"""Agents that misbehave: each costs its own attempt and is told in one line, and no process of it remains.

attempt ──▶ the agent misbehaves ──▶ AgentFailed: one line      the next attempt is as ever
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

import psutil
import pytest

from steptool.worlds.agent.agents import Agents, environment
from steptool.worlds.agent.program import Program
from steptool.worlds.base import AgentFailed
from tests.project import ROOT

AGENT = '''import asyncio, os, signal, subprocess, sys, threading, time

SEEN = []
FORK = """
import os, time
os.setsid()
if os.fork():
    os._exit(0)
with open("pid", "w") as file:
    file.write(str(os.getpid()))
time.sleep(99)
"""

def echo(query):
    SEEN.append(query)
    return f"{query} {len(SEEN)}"

async def echo_later(query):
    await asyncio.sleep(0.01)
    return query

def told(query):
    return " ".join(os.environ[name] for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "NO_PROXY", "KEPT"))

def silent(query):
    return None

def shows(query):
    return query

def raises(query):
    print("so far so good")
    raise LookupError("no such book")

def leaks(query):
    print("it knows", os.environ["MY_SECRET"])
    raise RuntimeError("oops " + os.environ["MY_SECRET"] + " " + os.environ["OPENAI_API_KEY"])

def exits(query):
    sys.exit(3)

def dies(query):
    print("about to go", flush=True)
    os._exit(4)

def crashes(query):
    os.kill(os.getpid(), signal.SIGSEGV)

def hangs(query):
    print("waiting for nothing")
    time.sleep(99)

def refuses_to_end(query):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        pass

def forks(query):
    # A grandchild in a session of its own, whose parent has ended.
    subprocess.run([sys.executable, "-c", FORK])
    while not os.path.exists("pid") or not open("pid").read():
        time.sleep(0.01)
    return open("pid").read()

def forks_and_hangs(query):
    forks(query)
    time.sleep(99)

def floods(query):
    for _ in range(3000):
        print("x" * 1000)
    print("the last line")
    return "done"

def answers_at_length(query):
    return "ä" * 3_000_000

def takes_memory(query):
    return str(len(bytearray(3 << 30)))

def kills_its_keeper(query):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(99)

def returns_a_list(query):
    return [query]

def takes_nothing():
    return "hm"

def has_threads(query):
    thread = threading.Thread(target=time.sleep, args=(99,))
    thread.start()
    return "ended"

def reads_the_keyboard(query):
    return input()

def run(query):
    return globals()[query](query)
'''
MODEL = "http://127.0.0.1:9/v1", "sk-1"
LOG = Path("logs", "run.log")


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    Path("my_agent.py").write_text(AGENT)
    before = set(psutil.Process().children(recursive=True))
    yield
    left = set(psutil.Process().children(recursive=True)) - before
    assert not left, f"{left} remain"


def run(program: Program, query: str = "hello", timeout_s: float = 20.0, **options: Any) -> str | None:
    """The answer of an agent, in a world that ends behind it."""

    async def attempt() -> str | None:
        agents = Agents(program, timeout_s=timeout_s, **options)
        try:
            return await agents.run(query, *MODEL, log=LOG)
        finally:
            agents.close()

    return asyncio.run(attempt())


def call(name: str, **options: Any) -> str | None:
    return run(Program(callable=f"my_agent:{name}"), **options)


def command(text: str, **options: Any) -> str | None:
    return run(Program(command=text, answer="output"), **options)


def is_alive(pid: str | int) -> bool:
    return psutil.pid_exists(int(pid)) and psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE


# Agents that behave


def test_a_callable_gets_the_query_and_each_attempt_begins_anew() -> None:
    async def attempts() -> list[str | None]:
        agents = Agents(Program(callable="my_agent:echo"), timeout_s=60)
        try:
            runs = (agents.run(each, *MODEL, log=LOG) for each in ("a", "b", "c"))
            return list(await asyncio.gather(*runs))
        finally:
            agents.close()

    assert asyncio.run(attempts()) == ["a 1", "b 1", "c 1"]


def test_a_callable_may_be_async_and_may_have_no_answer_of_its_own() -> None:
    assert call("echo_later") == "hello"
    assert call("silent") is None


def test_an_agent_is_told_the_address_and_its_key_and_keeps_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "mine")
    assert call("told") == "http://127.0.0.1:9/v1 sk-1 127.0.0.1 mine"


def test_no_proxy_stands_between_and_those_that_were_spared_still_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "intranet")
    told = environment("http://127.0.0.1:9/v1", "sk-1")
    assert told["NO_PROXY"] == told["no_proxy"] == "intranet,127.0.0.1"


@pytest.mark.parametrize(
    "query", ["hello", "two\nlines", "$(touch owned) `touch owned`; 'quoted\" --help", "ä" * 90_000]
)
def test_a_command_reads_the_query(query: str) -> None:
    assert command("cat", query=query) == query
    assert command("printf %s {query}", query=query[:1000]) == query[:1000]
    assert not Path("owned").exists()


def test_python_in_a_command_is_the_one_that_runs_this() -> None:
    assert command("python -c 'import sys; print(sys.prefix)'") == sys.prefix


def test_a_command_without_output_has_no_answer() -> None:
    assert command("true") is None


def test_what_a_command_prints_is_no_answer_unless_that_is_set() -> None:
    assert run(Program(command="echo hello")) is None
    assert LOG.read_text() == "hello\n"


def test_no_secret_is_in_what_an_agent_prints_or_fails_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "hunter2-hunter2")
    monkeypatch.setattr(sys.modules[__name__], "MODEL", (MODEL[0], "sk-attempt-1"))
    with pytest.raises(AgentFailed, match=r"oops \[MY_SECRET\] \[OPENAI_API_KEY\]"):
        call("leaks")
    assert "it knows [MY_SECRET]" in LOG.read_text()
    assert not any(secret in LOG.read_text() for secret in ("hunter2", "sk-attempt-1"))
    assert LOG.stat().st_mode & 0o777 == 0o600


def test_what_an_agent_prints_is_in_a_file_and_nothing_that_prints_nothing_has_one() -> None:
    call("silent")
    assert not LOG.exists()
    with pytest.raises(AgentFailed):
        call("raises")
    assert LOG.read_text().startswith("so far so good\nTraceback")


# Agents that do not


FAILURES = {
    "raises": "LookupError: no such book",
    "exits": "my_agent:run raised SystemExit: 3",
    "dies": "it ended its process with exit status 4; it printed last: about to go (all of it: logs/dies)",
    "crashes": "its process was ended by SIGSEGV",
    "takes_memory": "my_agent:run raised MemoryError: ",
    "kills_its_keeper": "the process that keeps it has ended: its process was ended by SIGKILL",
    "returns_a_list": "my_agent:run returned list, not a text or None",
    "reads_the_keyboard": "my_agent:run raised EOFError: EOF when reading a line",
}


def test_an_agent_that_fails_is_told_in_a_line_and_costs_no_other() -> None:
    names = ["shows", *FAILURES, "shows", "forks", "shows"]

    async def attempts() -> list[Any]:
        agents = Agents(Program(callable="my_agent:run"), timeout_s=60, memory_mb=1024)
        try:
            runs = (agents.run(each, *MODEL, log=Path("logs", each)) for each in names)
            return await asyncio.gather(*runs, return_exceptions=True)
        finally:
            agents.close()

    for name, found in zip(names, asyncio.run(attempts()), strict=True):
        if name in FAILURES:
            assert isinstance(found, AgentFailed), name
            assert str(found).endswith(FAILURES[name])
        else:
            assert found == ("shows" if name == "shows" else Path("pid").read_text())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("takes_nothing", "my_agent: takes_nothing does not take the query alone: too many positional arguments"),
        ("nothing", "my_agent: has no function nothing"),
    ],
)
def test_what_is_no_function_of_the_query_is_told(name: str, message: str) -> None:
    with pytest.raises(AgentFailed) as failed:
        call(name)
    assert str(failed.value) == message


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("raise SystemExit(2)", "SystemExit: 2"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told(code: str, said: str) -> None:
    Path("broken.py").write_text(code)
    with pytest.raises(AgentFailed, match=f"broken: cannot be imported: {said}"):
        run(Program(callable="broken:run"), preload=["nowhere_at_all"])


def test_an_unknown_module_and_an_unknown_program_are_told() -> None:
    with pytest.raises(AgentFailed, match="no_such: cannot be imported: ModuleNotFoundError"):
        run(Program(callable="no_such:run"))
    with pytest.raises(AgentFailed, match=r"^no-such-program cannot be started: No such file or directory$"):
        command("no-such-program --now")


def test_a_command_that_fails_is_told_with_its_last_words() -> None:
    with pytest.raises(AgentFailed, match="exit status 3; it printed last: bad thing"):
        command("sh -c 'echo first; echo bad thing >&2; exit 3'")


@pytest.mark.parametrize("name", ["hangs", "refuses_to_end"])
def test_an_agent_that_does_not_end_is_ended(name: str) -> None:
    begun = time.monotonic()
    with pytest.raises(AgentFailed, match=r"did not end within 0\.5 s"):
        call(name, timeout_s=0.5)
    assert time.monotonic() - begun < 10
    if name == "hangs":
        assert LOG.read_text() == "waiting for nothing\n"


def test_what_an_agent_has_forked_ends_with_it() -> None:
    pid = call("forks")
    assert pid and not is_alive(pid)


def test_what_an_agent_has_forked_ends_with_it_where_it_is_late() -> None:
    with pytest.raises(AgentFailed):
        call("forks_and_hangs", timeout_s=2)
    assert not is_alive(Path("pid").read_text())


def test_what_a_command_has_forked_ends_with_it() -> None:
    command("sh -c 'setsid sleep 99 & echo $! > pid'")
    assert not is_alive(Path("pid").read_text())


def test_threads_that_go_on_hold_nothing_up() -> None:
    begun = time.monotonic()
    assert call("has_threads") == "ended"
    assert time.monotonic() - begun < 10


def test_an_agent_that_prints_megabytes_is_kept_in_part() -> None:
    assert call("floods") == "done"
    kept = LOG.read_text()
    assert 200_000 < len(kept) < 300_000
    assert kept.endswith("x\nthe last line\n")
    assert "... (cut: 2" in kept


def test_an_answer_is_kept_in_part() -> None:
    assert call("answers_at_length") == "ä" * 100_000
    assert len(command("sh -c 'yes | head -c 3000000'") or "") < 300_000


def test_a_cancelled_attempt_ends_its_agent() -> None:
    async def cancelled() -> list[psutil.Process]:
        agents = Agents(Program(callable="my_agent:forks_and_hangs"), timeout_s=60)
        attempt = asyncio.create_task(agents.run("q", *MODEL, log=LOG))
        while not Path("pid").exists() or not Path("pid").read_text():
            await asyncio.sleep(0.02)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        assert not is_alive(Path("pid").read_text())
        left = psutil.Process().children(recursive=True)
        agents.close()
        return left

    assert len(asyncio.run(cancelled())) == 1, "the fork server alone remains"


def test_an_attempt_may_be_cancelled_before_its_agent_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path.cwd()))
    Path("slow_import.py").write_text("import time\ntime.sleep(1)\n")

    async def cancelled() -> None:
        agents = Agents(Program(callable="my_agent:echo"), timeout_s=60, preload=["slow_import"])
        attempt = asyncio.create_task(agents.run("q", *MODEL, log=LOG))
        await asyncio.sleep(0.5)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        agents.close()

    asyncio.run(cancelled())


# The end of this process

PARENT = """
import asyncio, sys
from pathlib import Path
from steptool.worlds.agent.agents import Agents
from steptool.worlds.agent.program import Program
agents = Agents(Program(**{program}), timeout_s=90)
asyncio.run(agents.run("q", "http://127.0.0.1:9/v1", "k", log=Path("log")))
"""


@pytest.mark.parametrize("program", [{"callable": "my_agent:forks_and_hangs"}, {"command": "python -c 'FORK'"}])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_outlives_the_process_that_runs_agents(program: dict[str, str], number: signal.Signals) -> None:
    code = "import my_agent; my_agent.forks_and_hangs(1)"
    program = {kind: text.replace("FORK", code) for kind, text in program.items()}
    path = os.pathsep.join((str(ROOT), os.getcwd()))
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(program=json.dumps(program))],
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: Path("pid").exists() and Path("pid").read_text() != "")
        started = [*psutil.Process(parent.pid).children(recursive=True), psutil.Process(int(Path("pid").read_text()))]
        parent.send_signal(number)
        parent.wait(20)
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not any(is_alive(each.pid) for each in started))


def wait_for(holds: Any) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)

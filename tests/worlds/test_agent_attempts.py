"""Good and bad agents, all at once, through the whole road: world, processes, gateway, search, verdict.

query            what the agent does                        ends as
plain            find → Finish                              finished, solved
never asks       returns                                    world_error: it says nothing of the policy
fails later      find, then raises                          call_budget, not solved
…
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from steptool.core.revision import forget_sources
from steptool.core.types import Sampling, StopReason, Task, Trajectory
from steptool.engines.fake import AnsweringEngine
from steptool.rollouts.agent import Agent
from steptool.worlds.agent.world import AgentWorld
from tests.rollouts.attempts import CHAT, attempt_of
from tests.worlds.test_agent_processes import is_alive
from tests.worlds.test_agent_world import AGENT as PLAIN

AGENT = f"""{PLAIN}
import subprocess, threading, time, urllib.error

plain = run

def act(query):
    return ask([{{"role": "user", "content": query}}])

def never_asks(query):
    return "enuD"

def fails_first(query):
    raise LookupError("no idea")

def fails_later(query):
    act(query)
    raise LookupError("no idea any more")

def hangs(query):
    act(query)
    time.sleep(99)

def has_another_key(query):
    os.environ["OPENAI_API_KEY"] = "sk-steptool-of-somebody-else"
    return act(query)

def never_has_enough(query):
    for number in range(10_000):
        try:
            act(f"{{query}} {{number}}")
        except urllib.error.HTTPError as refused:
            last = json.load(refused)["error"]["message"]
            print(last)

def opens_fifty_connections(query):
    threads = [threading.Thread(target=act, args=(f"{{query}} {{number}}",)) for number in range(50)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return "enuD"

def sends_nonsense(query):
    for body in (b"", b"[", b"[1]", b'{{"messages": 7}}', b"x" * 5_000_000):
        request = urllib.request.Request(
            os.environ["OPENAI_BASE_URL"] + "/chat/completions", data=body,
            headers={{"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}})
        try:
            urllib.request.urlopen(request)
        except OSError:
            continue
    return plain(query)

def forks(query):
    child = subprocess.Popen(["setsid", "sleep", "99"])
    with open("forked", "w") as file:
        file.write(str(child.pid))
    return plain(query)

def floods(query):
    for _ in range(2000):
        print("x" * 1000)
    return plain(query)

def run(query):
    if query.startswith("Find"):
        return plain(query)
    return globals()[query.rstrip("?").replace(" ", "_")](query)
"""
ENDS: dict[str, tuple[StopReason, float | None, str | None]] = {
    "plain": (StopReason.finished, 1.0, None),
    "never asks": (
        StopReason.world_error,
        0.0,
        "the agent ended, without an action of the policy: it sent no request",
    ),
    "fails first": (StopReason.world_error, 0.0, "agent:run raised LookupError: no idea, without an action"),
    "fails later": (StopReason.call_budget, 0.0, "agent:run raised LookupError: no idea any more"),
    "has another key": (StopReason.world_error, 0.0, "HTTP Error 401"),
    "never has enough": (StopReason.call_budget, 0.0, None),
    "opens fifty connections": (StopReason.call_budget, 0.0, None),
    "sends nonsense": (StopReason.finished, 1.0, None),
    "forks": (StopReason.finished, 1.0, None),
    "floods": (StopReason.finished, 1.0, None),
}
SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_calls=4, max_step_tokens=100, max_tokens=4096)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentWorld]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    forget_sources()
    check = {"kind": "text", "expected": "enuD"}
    lines: list[dict[str, Any]] = [{"query": "Find it.", "check": check, "split": "train"}]
    lines += [{"id": name, "query": f"{name}?", "check": check, "split": "test"} for name in (*ENDS, "hangs")]
    Path("agent.py").write_text(AGENT)
    Path("tasks.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    made = AgentWorld(AgentWorld.Config(callable="agent:run", timeout_s=8.0), 17)
    before = set(psutil.Process().children(recursive=True))
    yield made
    made.end()
    forget_sources()
    assert set(psutil.Process().children(recursive=True)) <= before


def says(prompt: tuple[int, ...]) -> Sequence[int]:
    said = 'Finish {"answer": "enuD"}' if "enuD" in CHAT.turns.decode(prompt) else 'find {"title": "Dune"}'
    return (*CHAT.turns.encode_action(said), CHAT.end_of_turn)


def attempts(world: AgentWorld, tasks: Sequence[Task]) -> dict[str, Sequence[Trajectory]]:
    engine, search = AnsweringEngine(says), Agent(Agent.Config())

    async def attempt(task: Task) -> Sequence[Trajectory]:
        session = world.open(task, 0)
        return await search.attempt(attempt_of(task, engine, session, sampling=SAMPLING, tool_timeout_s=10.0))

    async def all_at_once() -> list[Sequence[Trajectory]]:
        return list(await asyncio.gather(*map(attempt, tasks)))

    try:
        return dict(zip([task.id for task in tasks], asyncio.run(all_at_once()), strict=True))
    finally:
        search.end()


def test_every_agent_costs_its_own_attempt_alone(world: AgentWorld) -> None:
    begun = time.monotonic()
    found = attempts(world, [task for task in world.tasks("test") if task.id in ENDS])
    assert time.monotonic() - begun < 60
    for name, (reason, solved, error) in ENDS.items():
        ended = found[name][0]
        assert (name, ended.stop_reason, ended.outcome.solved) == (name, reason, solved), ended.error
        assert (error or "") in (ended.error or ""), ended.error
    assert [call.name for step in found["plain"][0].steps for call in step.action.calls] == ["find", "Finish"]
    assert "budget of this attempt is used up: 4 replies" in Path(".steptool/agent/never-has-enough-0.log").read_text()
    assert sum(len(each.steps) for each in found["opens fifty connections"]) == SAMPLING.max_calls
    assert Path(".steptool/agent/floods-0.log").stat().st_size < 300_000
    assert not is_alive(Path("forked").read_text())


@pytest.mark.slow
def test_an_agent_that_hangs_is_ended_and_what_it_did_is_kept(world: AgentWorld) -> None:
    (ended,) = attempts(world, [task for task in world.tasks("test") if task.id == "hangs"])["hangs"]
    assert (ended.stop_reason, ended.outcome.solved) == (StopReason.call_budget, 0.0)
    assert "it did not end within 8 s" in (ended.error or "")
    assert [call.name for step in ended.steps for call in step.action.calls] == ["find"]

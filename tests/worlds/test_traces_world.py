"""A world of imported traces: which reply a call gets, and how an attempt is judged.

attempt at             find(Dune)     find(Dune) again     book(b1)
What does Dune cost?   busy           b1                   9.5
Who wrote Dune?        busy           b1                   -
What is my name?       -              -                    -          me() → Ann in one, me() → Bo in another
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from steptool.core.errors import DataError
from steptool.core.types import Outcome, Task, ToolCall, Trajectory
from steptool.testing import step, trajectory
from steptool.traces import folder as imported
from steptool.traces.kinds import import_from
from steptool.worlds.base import SPLITS
from steptool.worlds.traces.replies import Replies, key
from steptool.worlds.traces.world import TracesWorld
from tests.traces.test_workbench import BENCH, records

BUSY, DUNE, BOOK = '{"error": "busy"}', '{"id": "b1"}', '{"author": "Herbert", "price": 9.5}'
FIND, BY_ID = ("find", {"title": "Dune"}), ("book", {"id": "b1"})
REFUSALS = ("no_recording", "unknown_tool")
Made = tuple[str, dict[str, Any]]


def conversation(query: str, calls: list[tuple[Made, str]], answer: str | None, **beside: Any) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": query}]
    for number, ((name, arguments), reply) in enumerate(calls):
        call = {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"c{number}", "content": reply})
    messages += [{"role": "assistant", "content": answer}] if answer is not None else []
    names = ("find", "book", "me")
    tools = [{"type": "function", "function": {"name": name, "description": name, "parameters": {}}} for name in names]
    return {"messages": messages, "tools": tools, **beside}


COST, WROTE = "What does Dune cost?", "Who wrote Dune?"
LOG = [
    conversation(COST, [(FIND, BUSY), (FIND, DUNE), (BY_ID, BOOK)], "It costs 9.5.", expected=9.5),
    conversation(WROTE, [(FIND, BUSY), (FIND, DUNE)], "Herbert"),
    conversation("What is my name? I am 1.", [(("me", {}), "Ann")], "Ann"),
    conversation("What is my name? I am 2.", [(("me", {}), "Bo")], "Bo"),
]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    import_from("log.jsonl")
    return "traces/log"


def world_of(path: str, **settings: Any) -> TracesWorld:
    return TracesWorld(TracesWorld.Config.model_validate({"path": path, **settings}), seed=17)


def task_of(world: TracesWorld, query: str) -> Task:
    return next(task for split in ("train", "dev", "test") for task in world.tasks(split) if task.query == query)


def attempted(world: TracesWorld, query: str, calls: list[Made], answer: str | None) -> tuple[list[str], Outcome]:
    async def attempt() -> tuple[list[str], Outcome]:
        session = world.open(task_of(world, query), seed=0)
        seen = [await session.call(ToolCall(name=name, arguments=arguments)) for name, arguments in calls]
        return [each.error if each.error in REFUSALS else each.text for each in seen], await session.close(answer)

    return asyncio.run(attempt())


def test_an_attempt_that_does_what_was_done_gets_the_same_replies(log: str) -> None:
    replies, outcome = attempted(world_of(log), COST, [FIND, FIND, BY_ID], "9.5")
    assert replies == [BUSY, DUNE, BOOK]
    assert (outcome.solved, "replies" in outcome.evidence) == (1, False)


def test_a_reply_depends_on_how_often_the_attempt_made_the_call_and_the_last_stays(log: str) -> None:
    replies, _ = attempted(world_of(log), COST, [FIND, FIND, FIND, FIND], None)
    assert replies == [BUSY, DUNE, DUNE, DUNE]


def test_a_reply_of_another_task_is_given_and_the_evidence_says_so(log: str) -> None:
    replies, outcome = attempted(world_of(log), WROTE, [BY_ID], "Herbert")
    assert replies == [BOOK]
    assert (outcome.solved, outcome.evidence) == (None, "only a judge can tell; of 1 replies 1 of another task")


def test_a_reply_that_differs_from_task_to_task_is_not_given_to_a_third(log: str) -> None:
    assert attempted(world_of(log), COST, [("me", {})], None)[0] == ["no_recording"]
    assert attempted(world_of(log), "What is my name? I am 2.", [("me", {})], None)[0] == ["Bo"]


@pytest.mark.parametrize(
    ("call", "nearest", "reply"),
    [
        (("find", {"title": " dune "}), 1.0, BUSY),
        (("find", {"title": "Dunes"}), 1.0, "no_recording"),
        (("find", {"title": "Dunes"}), 0.8, BUSY),
        (("find", {"title": "Emma"}), 0.5, "no_recording"),
        (("find", {"title": "Dune", "year": 1965}), 0.5, "no_recording"),
        (("find", {"title": "Dune", "year": None}), 1.0, BUSY),
        (("buy", {"title": "Dune"}), 1.0, "unknown_tool"),
    ],
)
def test_other_arguments_get_a_reply_where_they_are_spelled_otherwise_or_near(
    log: str, call: Made, nearest: float, reply: str
) -> None:
    assert attempted(world_of(log, nearest=nearest), COST, [call], None)[0] == [reply]


def test_numbers_are_equal_however_they_are_written() -> None:
    calls = [ToolCall(name="f", arguments={"n": n}) for n in (3, 3.0, "3", " 3.0 ")]
    assert len({key(call) for call in calls}) == 1
    assert key(ToolCall(name="f", arguments={"n": "03"})) != key(calls[0])


def made(query: str, *replies: str) -> tuple[str, Trajectory]:
    return query, trajectory(*(step(FOUND, reply) for reply in replies), solved=None)


FOUND = ToolCall(name="find", arguments={"title": "Dune"})


@pytest.mark.parametrize(
    ("recorded", "before", "reply", "origin"),
    [
        ([made("Q", "a"), made("Q", "b"), made("q", "b")], 0, "b", "recorded"),  # the commonest
        ([made("Q", "busy"), made("other", "busy", "a")], 1, "a", "of another task"),  # who gave up says no more
        ([made("Q", "busy"), made("Q", "busy", "a")], 7, "a", "recorded"),  # the last stays
        ([made("Q", "a"), made("1", "b"), made("2", "b")], 0, "a", "recorded"),  # one's own comes first
        ([made("1", "a"), made("2", "b"), made("3", "b")], 0, "b", "of another task"),  # most others agree
        ([made("1", "a"), made("2", "b")], 0, None, None),  # they do not
    ],
)
def test_of_several_recordings_one_is_chosen(
    recorded: list[tuple[str, Trajectory]], before: int, reply: str | None, origin: str | None
) -> None:
    found = Replies(recorded).find(" q", FOUND, before)
    assert (found and found.observation.text, found and found.origin) == (reply, origin)


def test_tasks_of_the_users_own_lay_checks_over_the_log(log: str) -> None:
    line = {"query": WROTE, "check": {"kind": "text", "expected": "Herbert"}}
    lines = [line | {"split": "test"}, {"query": COST, "split": "train"}]
    Path("mine.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    world = world_of(log, tasks="mine.jsonl")
    assert [task.query for task in world.tasks("test")] == [WROTE]
    replies, outcome = attempted(world, WROTE, [FIND, FIND], "Herbert")
    assert (replies[1], outcome.solved, "another task" in outcome.evidence) == (DUNE, 1, False)


def test_a_function_checks_the_calls_though_nothing_was_called(log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("judging.py").write_text(
        "def looked_up(answer, calls, state):\n    return [c.name for c in calls] == ['find']\n"
    )
    lines = [{"query": WROTE, "check": "looked_up", "split": "test"}, {"query": COST, "split": "train"}]
    Path("mine.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    world = world_of(log, tasks="mine.jsonl", checks="judging.py")
    try:
        assert [attempted(world, WROTE, calls, "Herbert")[1].solved for calls in ([FIND], [])] == [1, 0]
    finally:
        world.end()
        sys.modules.pop("judging", None)


def test_a_check_of_the_state_is_refused_for_there_is_none(log: str) -> None:
    check = {"kind": "state", "tool": "find", "arguments": {}, "expected": 1}
    lines = [{"query": WROTE, "check": check}, {"query": COST}]
    Path("mine.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    with pytest.raises(DataError, match="recorded replies do not know what it changed") as refused:
        world_of(log, tasks="mine.jsonl")
    assert "check the answer" in str(refused.value.fix)


def test_a_folder_without_traces_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"traces/none: holds no imported traces: there is no tasks.jsonl"):
        TracesWorld.content(TracesWorld.Config.model_validate({"path": "traces/none"}))


def test_its_revision_is_that_of_the_folder_and_not_of_the_report(log: str) -> None:
    config = TracesWorld.Config.model_validate({"path": log})
    before = TracesWorld.content(config)
    Path(log, "import.json").write_text("{}")
    assert TracesWorld.content(config) == before
    Path(log, "tools.json").write_text("[]")
    assert TracesWorld.content(config) != before


@pytest.mark.slow
@pytest.mark.skipif(not (BENCH / "queries.jsonl").is_file(), reason="needs the recordings of WorkBench")
def test_every_recorded_run_of_gpt_4_can_be_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """590 real attempts with 1,317 calls: each call gets the reply that it got then."""
    monkeypatch.chdir(tmp_path)
    Path("log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records("gpt-4_domains")))
    folder, _ = import_from("log.jsonl")
    world = world_of(str(folder))
    tasks = {task.id: task for split in SPLITS for task in world.tasks(split)}
    calls = 0

    async def again(attempt: Trajectory) -> int:
        session = world.open(tasks[attempt.task_id], seed=0)
        made = [
            (call, seen)
            for each in attempt.steps
            for call, seen in zip(each.action.calls, each.observations, strict=False)
        ]
        assert [await session.call(call) for call, _ in made] == [seen for _, seen in made]
        await session.close(attempt.answer)
        return len(made)

    for attempt in imported.trajectories(folder):
        calls += asyncio.run(again(attempt))
    assert calls > 1_300

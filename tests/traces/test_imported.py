"""Imported attempts as demonstrations of a world, and as a round.

task         check     attempts: answer, label of the source      solved   unchecked   all
2+2? train   4         "4", none                                  x        x           x
             4         "5", good: the check knows better                               x
3+3? train   none      "6", none                                           x           x
             none      "7", bad                                                        x
             none      unfinished
4+4? test    8         "8", none: held out
9+9?         no task of the world
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steptool.core.errors import DataError
from steptool.core.types import Task, Trajectory
from steptool.traces.imported import ImportedTraces
from steptool.traces.kinds import import_from
from steptool.worlds.functions import FunctionsWorld
from tests.worlds.conftest import Make, make  # noqa: F401  fixtures

TOOLS = "def add(a: int, b: int) -> int:\n    '''Sum of two numbers.'''\n    return a + b\n"
TASKS: list[dict[str, Any]] = [
    {"id": "two", "query": "2+2?", "split": "train", "check": {"kind": "number", "expected": 4}},
    {"id": "three", "query": "3+3?", "split": "train"},
    {"id": "four", "query": "4+4?", "split": "test", "check": {"kind": "number", "expected": 8}},
]


def record(query: str, answer: str | None, label: bool | None = None, tool: str = "add") -> dict[str, Any]:
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": tool, "arguments": f'{{"a": {query.strip()[0]}, "b": {2 if answer is None else 1}}}'},
    }
    messages = [
        {"role": "user", "content": query},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "3"},
        *([{"role": "assistant", "content": answer}] if answer else []),
    ]
    return {"messages": messages, **({} if label is None else {"solved": label})}


LOG = [
    record("2+2?", "4"),
    record("2+2?", "5", label=True),
    record(" 3+3?", "6"),
    record("3+3?", "7", label=False),
    record("3+3?", None),
    record("4+4?", "8"),
    record("9+9?", "18"),
]


@pytest.fixture
def world(make: Make, tmp_path: Path) -> FunctionsWorld:  # noqa: F811
    made = make(TOOLS, TASKS)
    write(LOG)
    return made


def write(records: list[dict[str, Any]], name: str = "log") -> None:
    Path(f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    import_from(f"{name}.jsonl")


def tasks_of(world: FunctionsWorld) -> dict[str, Task]:
    return {task.id: task for split in ("train", "dev", "test") for task in world.tasks(split)}


def read(world: FunctionsWorld, keep: str, name: str = "log") -> list[Trajectory]:
    config = ImportedTraces.Config.model_validate({"path": f"traces/{name}", "keep": keep})
    return ImportedTraces(config).read(world, tasks_of(world), seed=17)


@pytest.mark.parametrize(
    ("keep", "shown", "left_out"),
    [
        ("solved", ["4"], "2 that did not solve their task, 1 of which nobody knows whether they solved their task"),
        ("unchecked", ["4", "6"], "2 that did not solve their task"),
        ("all", ["4", "5", "6", "7"], ""),
    ],
)
def test_what_is_kept_by_check_by_label_and_where_nobody_knows(
    world: FunctionsWorld, keep: str, shown: list[str], left_out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sorted(each.answer or "" for each in read(world, keep)) == shown
    said = capsys.readouterr().out
    assert f"demonstrations: {len(shown)} attempts; left out: " in said
    for reason in (
        "1 of tasks that are held out",
        "1 of questions that no task asks",
        "1 that do not end in an answer",
    ):
        assert reason in said
    assert all(part in said for part in left_out.split(", "))


def test_an_attempt_belongs_to_the_task_that_asks_the_same_and_its_check_decides(world: FunctionsWorld) -> None:
    found = {each.answer: each for each in read(world, "all")}
    assert {answer: each.task_id for answer, each in found.items()} == {
        "4": "two",
        "5": "two",
        "6": "three",
        "7": "three",
    }
    assert {answer: each.outcome.solved for answer, each in found.items()} == {"4": 1, "5": 0, "6": None, "7": 0}
    assert {(each.task_id, each.attempt) for each in found.values()} == {
        ("two", 0),
        ("two", 1),
        ("three", 0),
        ("three", 1),
    }


def test_a_tool_that_the_world_does_not_have_cannot_be_shown(
    world: FunctionsWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    write([record("2+2?", "4", tool="sum"), record("3+3?", "6")], "other")
    assert [each.answer for each in read(world, "all", "other")] == ["6"]
    assert "1 that call a tool which their task does not offer" in capsys.readouterr().out


def test_a_log_of_other_questions_is_refused_and_says_why(world: FunctionsWorld) -> None:
    write([record("9+9?", "18"), record("8+8?", "16")], "strange")
    with pytest.raises(DataError, match="none of its attempts can be shown: 2 of questions that no task asks"):
        read(world, "all", "strange")


def test_a_round_takes_the_failed_and_the_unfinished_too(world: FunctionsWorld) -> None:
    training = {task.id: task for task in world.tasks("train")}
    references = {id: world.reference(task) for id, task in tasks_of(world).items()}
    source = ImportedTraces(ImportedTraces.Config(path="traces/log"))
    found, left_out = source.attempts(training, tasks_of(world).values(), references)
    assert sorted((each.task_id, each.answer or "") for each in found) == [
        ("three", ""), ("three", "6"), ("three", "7"), ("two", "4"), ("two", "5")
    ]  # fmt: skip
    assert left_out.total() == 2

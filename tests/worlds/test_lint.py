"""`steptool tasks check`: every error of a file of tasks at once, what is doubtful in it, and what it can show.

line 3   not JSON                       error, and the lines behind it are read
line 4   names a tool that is not there error
line 5   asks what line 1 asks          warning: same side
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from steptool.cli import app
from steptool.core.errors import DataError, InputError
from tests.worlds.conftest import Make

SHOP = '''
"""A shop."""
class Shop:
    def __init__(self) -> None:
        self.titles: list[str] = []

    def order(self, title: str) -> str:
        """Order a book."""
        self.titles.append(title)
        return "ordered"

    def orders(self) -> list[str]:
        """What was ordered."""
        return self.titles

def always(answer, calls, shop): return True
def never(answer, calls, shop): return False
def reads_a_number(answer, calls, shop): return float(answer) == 3
'''
TEXT = {"kind": "text", "expected": "a"}


def task(query: str, check: Any = TEXT, **more: Any) -> dict[str, Any]:
    return {"query": query, "check": check, **more}


def many(count: int, **more: Any) -> list[dict[str, Any]]:
    return [task(f"Who wrote book {n}?", {"kind": "text", "expected": f"writer {n}"}, **more) for n in range(count)]


@pytest.fixture
def lint(make: Make) -> Any:
    """Writes the tasks, lints them, and returns the exit status and what was printed."""

    def run(lines: list[Any], *options: str) -> tuple[int, str]:
        make(SHOP, many(10), module="tools.py:Shop")
        Path("params.yaml").write_text("world: {use: functions, module: 'tools.py:Shop', tasks: tasks.jsonl}\n")
        Path("tasks.jsonl").write_text(
            "".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in lines)
        )
        result = CliRunner().invoke(app, ["tasks", "check", *options])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return run


def test_tasks_without_fault_pass(lint: Any) -> None:
    status, said = lint(many(60))
    assert status == 0
    assert "errors: none; warnings: none" in said
    assert "18 test tasks show only differences of 40 points and more" in said
    assert "10 points need 250 test tasks" in said


def test_every_error_is_named_with_its_line_and_what_to_do(lint: Any) -> None:
    lines = [
        *many(20),
        '{"query": "What',
        {"query": "a?", "toolz": []},
        task("b?", tools=["nowhere"]),
        "",
        task("c?", "gone"),
        task("d?", {"kind": "state", "tool": "orders", "path": "$[", "expected": 1}),
        task("e?", {"kind": "state", "tool": "order", "arguments": {"titel": 1}, "expected": 1}),
        task("f?", id="1"),
        task("What of Kim?", split="train"),
        task("what, of kim!", split="test"),
        task("g?", {"kind": "number", "expected": "x"}),
        task("h?", "reads_a_number"),
    ]
    status, said = lint(lines)
    assert status == 2
    errors = [line for line in said.splitlines() if line.startswith("error ")]
    expected = [
        "tasks.jsonl:21: not JSON",
        "tasks.jsonl:22: TaskLine: toolz: Extra inputs",
        "tasks.jsonl:23: no tool is called 'nowhere'",
        "tasks.jsonl:25: check: tools has no function 'gone'",
        "tasks.jsonl:26: TaskLine: check.0.state.path: '$[' is no JSONPath",
        "tasks.jsonl:27: check: these are no arguments of order",
        "tasks.jsonl:28: another line has the id '1' too",
        "tasks.jsonl:30: is for test and asks what tasks.jsonl:29 asks, which is for train",
        "tasks.jsonl:31: TaskLine: check.0.answer: expects 'x', which is not a finite number",
        'tasks.jsonl:32: an attempt that calls nothing and answers "I do not know." cannot be judged',
    ]
    assert [
        line.partition("error    ")[2][: len(start)] for line, start in zip(errors, expected, strict=True)
    ] == expected
    assert said.count("         fix: ") >= len(expected)
    assert "errors: 10" in said
    assert "22 tasks can be read" in said


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        (
            [*many(20), task("please: who wrote book 3")],
            "1 task asking what another one asks: they go to the same side and intervals count them as one draw, "
            "but each counts in a rate "
            "(tasks.jsonl:4 = tasks.jsonl:21)",
        ),
        (
            [*many(20), task("Is it Emma or Kim?", {"kind": "text", "expected": "Emma"})],
            "1 task whose query holds the answer: who picks it out needs no tool (tasks.jsonl:21)",
        ),
        (
            [*many(20), task("Is it 3 or 4?", {"kind": "number", "expected": 3})],
            "1 task whose query holds the answer",
        ),
        ([*many(20), task("How many?", {"kind": "text", "expected": "$12.50"})], "1 task expecting a number as a text"),
        ([*many(20), task("Well?", None)], "1 task without a check, "),
        ([*many(20), task("Well?", "always")], '1 task solved by an attempt that calls nothing and answers "I do not'),
        (
            [*many(20), task("Well?", {"kind": "state", "tool": "orders", "path": "$", "expected": []})],
            "1 task solved by an attempt that calls nothing",
        ),
        (
            many(20, group="a") + many(2, group="b", id=None)[:0] + [task("Well?", group="b")],
            "1 of 2 groups have fewer",
        ),
        ([task(f"Which is it, {n}?") for n in range(40)], "12 of 12 test tasks with the answer a: who always says so"),
        (
            [task(f"Which is it, {n}?") for n in range(40)],
            "12 of 12 test tasks with an answer that a training task has",
        ),
    ],
)
def test_what_is_doubtful_is_a_warning(lint: Any, lines: list[Any], what: str) -> None:
    status, said = lint(lines)
    assert status == 0, said
    assert what in said


@pytest.mark.parametrize(
    "check",
    [
        "never",
        {"kind": "state", "tool": "orders", "path": "$", "expected": ["Dune"]},
        {"kind": "text", "expected": "Emma"},
    ],
)
def test_a_check_that_an_idle_attempt_fails_is_no_warning(lint: Any, check: Any) -> None:
    assert "errors: none; warnings: none" in lint([*many(40), task("Who wrote the other one?", check)])[1]


def test_the_split_is_shown_by_group(lint: Any) -> None:
    said = lint([{**each, "group": "ab"[n % 2], "id": str(n)} for n, each in enumerate(many(40))])[1]
    assert [line.split() for line in said.splitlines()[1:5]] == [
        ["train", "dev", "test"],
        ["a", "10", "4", "6"],
        ["b", "10", "4", "6"],
        ["all", "groups", "20", "8", "12"],
    ]


def test_the_assumed_discordance_can_be_set(lint: Any) -> None:
    assert "differences of 58 points and more" in lint(many(40))[1]
    assert "150 test tasks show only differences of 7 points" in lint(many(500), "--discordance", "0.1")[1]


def test_tasks_of_clusters_show_what_so_many_clusters_show(lint: Any) -> None:
    lines = [{**each, "cluster": f"shelf {n // 3}"} for n, each in enumerate(many(120, split="test"))]
    said = lint([*lines, task("Who was it?", {"kind": "text", "expected": "Ann"}, split="train")])[1]
    assert "120 test tasks, which are 40 clusters, show only differences of" in said


def test_few_tasks_show_nothing(lint: Any) -> None:
    assert "3 test tasks show no difference, however large: six are the least" in lint(many(10))[1]


def test_a_screen_holds_what_is_said_of_many_tasks(lint: Any) -> None:
    lines = [task(f"Which is it, {n}?", None, group=f"g{n % 40}") for n in range(400)] * 2
    said = lint([{**each, "id": str(n)} for n, each in enumerate(lines)])[1]
    assert len(said.splitlines()) <= 40


def test_what_prepare_would_refuse_is_an_error_here_with_all_its_lines(lint: Any) -> None:
    lines = [*many(8), *({**each, "group": "all"} for each in many(14)[8:]), task("  "), task("Nothing?", tools=[])]
    status, said = lint(lines)
    assert status == 2
    found = [line for line in said.splitlines() if line.startswith("error ")]
    assert found[0] == (
        "error    tasks.jsonl:9, tasks.jsonl:10, tasks.jsonl:11 and 3 more: "
        "its group all has the name of a total in tables; give it another"
    )
    assert found[1:] == ["error    tasks.jsonl:15: asks nothing", "error    tasks.jsonl:16: offers no tools"]
    assert "errors: 3;" in said


def test_tasks_are_listed_by_their_split(lint: Any) -> None:
    lint([{**each, "id": f"b{n}"} for n, each in enumerate(many(10))] + [task("Two\nlines?", split="dev", group="own")])

    def listed(*options: str) -> list[list[str]]:
        done = CliRunner().invoke(app, ["tasks", "list", *options], catch_exceptions=False)
        return [line.split("\t") for line in done.output.splitlines()]

    everything, train = listed(), listed("--split", "train")
    assert [row[0] for row in everything] == ["train"] * 5 + ["dev"] * 3 + ["test"] * 3
    assert train == everything[:5]
    assert ["dev", "11", "own", "Two lines?"] in everything
    assert all(query == f"Who wrote book {name[1:]}?" for _, name, _, query in train)
    with pytest.raises(InputError, match="there is no split 'held out'"):
        listed("--split", "held out")


def test_a_long_list_of_tools_is_cut(make: Make) -> None:
    code = "".join(f'def tool_{n}(a: int) -> int:\n    """Tool."""\n    return a\n\n' for n in range(60))
    with pytest.raises(DataError, match="no tool is called 'nope'") as caught:
        make(code, [*many(10), task("And?", tools=["nope"])])
    assert str(caught.value.fix).endswith("tool_18, tool_19 and 40 more: `steptool tools list`")


def test_a_file_that_is_not_there_is_named(lint: Any, make: Make) -> None:
    lint(many(10))
    Path("tasks.jsonl").unlink()
    with pytest.raises(DataError, match=r"tasks.jsonl: no such file"):
        CliRunner().invoke(app, ["tasks", "check"], catch_exceptions=False)


def test_a_world_without_a_file_of_tasks_says_so(lint: Any) -> None:
    lint(many(10))
    Path("params.yaml").write_text("world: {use: mini}\n")
    with pytest.raises(InputError, match="world mini has no file of tasks") as error:
        CliRunner().invoke(app, ["tasks", "check"], catch_exceptions=False)
    assert "fix: use functions" in str(error.value)

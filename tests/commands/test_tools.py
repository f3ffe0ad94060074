"""`steptool tools list | try | check`, in a project of functions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from steptool.commands.tools import app
from steptool.core.errors import InputError
from steptool.core.revision import forget_sources

TOOLS = '''
from typing import Literal
from pydantic import BaseModel
BOOKS = {"Dune": {"price": 9.5, "copies": [1, 2]}}

class Line(BaseModel):
    title: str

def price(title: str) -> dict:
    """Price of a book."""
    return BOOKS[title]

def order(lines: list[Line], kind: Literal["new", "used"] = "new", note: str | None = None) -> str:
    """Order books.

    Not all at once.
    """
    return "ordered"
'''
TASKS = [{"query": "Well?", "split": "train"}, {"query": "Other?", "split": "test"}]


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write()
    Path("tasks.jsonl").write_text("".join(f"{json.dumps(task)}\n" for task in TASKS))
    yield
    write()


def write(tools: str = TOOLS, record: str = "auto") -> None:
    sys.modules.pop("tools", None)
    forget_sources()
    Path("tools.py").write_text(tools)
    Path("params.yaml").write_text(f"world: {{use: functions, record: {record}}}\n")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_tools_are_listed_with_their_arguments() -> None:
    assert run("list").stdout == (
        "price(title: string)\n    Price of a book.\n"
        "order(lines: [Line], kind?: new|used, note?: string|null)\n    Order books. Not all at once.\n"
    )


def test_a_tool_is_called_and_the_second_time_replayed() -> None:
    for origin in ("live", "from recordings.db"):
        done = run("try", "price", '{"title": "Dune"}')
        assert (done.exit_code, done.stdout) == (0, '{"price":9.5,"copies":[1,2]}\n')
        assert done.stderr.startswith("no error, ")
        assert done.stderr.endswith(f" s, {origin}\n")


def test_off_is_a_word_in_params() -> None:
    write(record="off")
    assert run("try", "price", '{"title": "Dune"}').stderr.endswith("live\n")
    assert not Path("recordings.db").exists()


def test_an_error_of_a_tool_is_shown() -> None:
    done = run("try", "price", '{"title": "Emma"}')
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"error": "KeyError: 'Emma'"})
    assert done.stderr.startswith("error tool_error, ")


@pytest.mark.parametrize(
    ("arguments", "found", "fix"),
    [
        (["prices"], "no tool is called 'prices'", "did you mean price?"),
        (["unlike"], "no tool is called 'unlike'", "`steptool tools list` lists them"),
        (["price", "{title"], "the arguments are no JSON", '{"title": "Dune"}'),
        (["price", "5"], "the arguments are no object: 5", '{"title": "Dune"}'),
    ],
)
def test_what_cannot_be_called_is_said(arguments: list[str], found: str, fix: str) -> None:
    error = run("try", *arguments).exception
    assert isinstance(error, InputError)
    assert (error.found.startswith(found), fix in (error.fix or "")) == (True, True)


def test_drift_is_named() -> None:
    """The same code, whose data has changed."""
    code = "import json\nBOOKS = json.load(open('books.json'))\n" + TOOLS.replace("BOOKS = {", "_ = {")
    Path("books.json").write_text('{"Dune": {"price": 9.5, "copies": [1, 2]}, "Emma": "sold"}')
    write(code)
    for title in ("Dune", "Emma", "Kim"):
        run("try", "price", json.dumps({"title": title}))
    same = run("check")
    assert (same.exit_code, same.stdout) == (0, "calls made again: 3; differences: none\n")
    Path("books.json").write_text('{"Dune": {"price": 10.5, "copies": [1, 3]}, "Kim": "here"}')
    drift = run("check")
    assert drift.exit_code == 1
    assert sorted(drift.stdout.splitlines()) == [
        "calls made again: 3; differences: 4",
        'price({"title": "Dune"}): $.copies[1]: 2 → 3',
        'price({"title": "Dune"}): $.price: 9.5 → 10.5',
        'price({"title": "Emma"}): error None → tool_error: {"error": "KeyError: \'Emma\'"}',
        'price({"title": "Kim"}): error tool_error → None: here',
    ]
    assert run("check", "--sample", "1").stdout.splitlines()[-1].startswith("calls made again: 1;")


def test_a_reply_longer_than_a_terminal_shows_is_compared_as_it_was_recorded() -> None:
    write(TOOLS + "\ndef flood() -> str:\n    'A long reply.'\n    return 'x' * 1_500_000\n")
    Path("params.yaml").write_text("world: {use: functions, record: auto, tool_output_kb: 1200}\n")
    assert run("try", "flood").exit_code == 0
    same = run("check")
    assert (same.exit_code, same.stdout) == (0, "calls made again: 1; differences: none\n")


def test_nothing_recorded_is_said() -> None:
    error = run("check").exception
    assert isinstance(error, InputError)
    assert error.found == "holds no replies of these tools"


def test_a_world_without_tools_of_its_own_is_named() -> None:
    Path("params.yaml").write_text("world: {use: mini}\n")
    error = run("list").exception
    assert isinstance(error, InputError)
    assert error.found == "world mini has no tools of a project"


def test_the_command_exits_with_two() -> None:
    command = [sys.executable, "-m", "steptool.cli", "tools", "try", "prices"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "did you mean price?" in done.stderr) == (2, True)

"""A policy in the terminal: what it is asked, each call with its reply, what came of it and what each step scores.

policy    a stand-in that looks the order up and answers
world     two tasks over one function
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from steptool.config.settings import load_params
from steptool.core.errors import InputError
from steptool.policies.base_models import fetch_base
from steptool.serving.chat import chat
from steptool.serving.policy import find

PARAMS = """
world: {use: functions, module: order_tools.py, tasks: tasks.jsonl}
engine: {use: "steptool.engines.fake:RulesEngine", rules: says.jsonl}
model: {base: tiny-random, dtype: float32}
sample: {max_tokens: 4096}
"""
TOOLS = '''
def find_order(id: str) -> dict[str, str]:
    """Finds an order."""
    return {"state": "shipped [red]\\x1b[2J", "id": id}
'''
TASKS = """
{"id": "a", "group": "g", "query": "Where is order 7?", "check": {"kind": "text", "expected": "shipped"}}
{"id": "b", "group": "g", "query": "Where is order 8?", "check": {"kind": "text", "expected": "lost"}}
"""
SAYS = r"""
{"when": "<|im_start|>tool", "say": "Finish {\"answer\": \"shipped\"}"}
{"when": "", "say": "I look it up.\nfind_order {\"id\": \"7\"}"}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests: a process imports a module of tools once."""
    folder = tmp_path_factory.mktemp("project")
    written = {"params.yaml": PARAMS, "order_tools.py": TOOLS, "tasks.jsonl": TASKS, "says.jsonl": SAYS}
    for name, text in written.items():
        (folder / name).write_text(text.lstrip())
    fetch_base("tiny-random", folder / "models" / "base")
    return folder


@pytest.fixture
def talk(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.chdir(project)
    params = load_params()

    def said(*, text: str = "", task: str = "") -> str:
        shown = io.StringIO()
        console = Console(file=shown, width=100, highlight=False)
        chat(params, find(params, "models/base"), text=text, task=task, console=console)
        return shown.getvalue()

    return said


def test_a_task_is_shown_step_by_step_with_its_scores(talk: Callable[..., str]) -> None:
    lines = [line.rstrip() for line in talk(task="a").splitlines()]
    assert lines[0] == "Where is order 7?"
    assert lines[1].startswith("base, task a, tools find_order, a prompt of ")
    shown = "\n".join(lines[2:])
    assert '  1  I look it up.\n     find_order {"id": "7"}\n' in shown
    assert r'{"state": "shipped [red]\u001b[2J", "id": "7"}' in shown.replace('":"', '": "').replace('","', '", "')
    assert "answers shipped (2 steps, " in shown
    assert "\nsolved" in shown
    assert "success  contribution  builds  solved  grounded" in shown
    assert "\x1b" not in shown


def test_a_question_of_ones_own_has_no_verdict(talk: Callable[..., str]) -> None:
    shown = talk(text="Is it there?", task="b")
    assert shown.startswith("Is it there?\nbase, task b, ")
    assert "answers shipped" in shown
    assert "solved" not in shown


def test_an_unknown_task_is_refused(talk: Callable[..., str]) -> None:
    with pytest.raises(InputError, match="no task 'c'"):
        talk(task="c")


def test_without_a_terminal_there_must_be_something_to_ask(
    talk: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(InputError, match="nothing to ask"):
        talk()

"""`steptool check` on a project of three functions and eight tasks, with the toy tokenizer: nothing runs but the tools.

demonstration   stock {"name": "tea"}   {"left": 3}     Finish {"answer": "3"}     solved
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from ruamel.yaml import YAML

from steptool.commands.check import check
from steptool.core.errors import InputError
from steptool.core.storage import write_jsonl
from steptool.policies import tiny_model
from steptool.testing import call, finish, scored, step, trajectory, unreadable

TOOLS = '''
def stock(name: str) -> dict[str, int]:
    """How many of a thing are left."""
    return {"left": {"tea": 3, "jam": 5}[name]}
'''
PARAMS: dict[str, Any] = {
    "world": {"use": "functions", "module": "shop_of_check.py"},
    "demonstrations": {"use": "file", "path": "demonstrations.jsonl"},
    "model": {"base": "tiny-random"},
    "sample": {"tasks": 4, "max_tokens": 2048},
    "rounds": {"r1": {"from": "sft"}},
    "arms": {
        "sft": {"method": "sft", "from": "base", "data": ["demonstrations"]},
        "ppo": {"method": "step_ppo", "from": "sft", "data": ["r1"]},
    },
}
TASKS = [
    {"id": f"{thing}-{split}-{number}", "query": f"How many {thing} are left, {split} {number}?", "split": split,
     "check": {"kind": "number", "expected": left}}
    for split, count in (("train", 4), ("dev", 1), ("test", 2))
    for number in range(count)
    for thing, left in (("tea", 3),)
]  # fmt: skip
LOOKED = {"call": {"name": "stock", "arguments": {"name": "tea"}}, "observation": {"text": '{"left":3}'}}
ANSWERED = {"call": {"name": "Finish", "arguments": {"answer": "3"}}}
SHOWN = {"task_id": "tea-train-0", "steps": [LOOKED, ANSWERED]}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Write the project, with settings laid over PARAMS and lines in place of others; then check it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(
        task: str | None = None, attempt: Any = None, *, shown: Any = SHOWN, tasks: Any = TASKS, **settings: Any
    ) -> tuple[int, str]:
        monkeypatch.delitem(sys.modules, "shop_of_check", raising=False)
        Path("shop_of_check.py").write_text(TOOLS)
        Path("tasks.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in tasks))
        Path("demonstrations.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in [shown] if line))
        params = PARAMS | {k: {**PARAMS.get(k, {}), **v} for k, v in settings.items()}
        with Path("params.yaml").open("w") as file:
            YAML().dump(params, file)
        if isinstance(attempt, dict):
            Path("attempt.jsonl").write_text(json.dumps(attempt) + "\n")
            attempt = Path("attempt.jsonl")
        said = io.StringIO()
        status = check(task, attempt, Console(file=said, width=200))
        return status, said.getvalue()

    return run


def test_a_whole_project_is_ready(project: Callable[..., tuple[int, str]]) -> None:
    status, said = project()
    assert status == 0
    assert said.rstrip().endswith("ready: `steptool run`")
    assert "<|im_start|>user\nHow many tea are left, train 0?<|im_end|>" in said
    row = next(line for line in said.splitlines() if "stock {" in line and "left" in line)
    assert '{"left":3}' in row
    assert "used in the answer" in row
    assert "right answer" in said


def test_nothing_is_written(project: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    project()
    assert {each.name for each in tmp_path.iterdir() if each.name != "__pycache__"} == {
        "shop_of_check.py", "tasks.jsonl", "demonstrations.jsonl", "params.yaml"
    }  # fmt: skip


def test_a_hand_made_attempt_is_replayed_against_the_live_tools(project: Callable[..., tuple[int, str]]) -> None:
    wrong = {"call": {"name": "stock", "arguments": {"thing": "tea"}}}
    guess = {"call": {"name": "Finish", "arguments": {"answer": "4"}}}
    status, said = project(attempt={"task_id": "tea-train-1", "steps": [wrong, guess]})
    assert status == 0
    assert "attempt.jsonl:1, replayed on task tea-train-1: finished" in said
    assert "bad arguments" in said
    assert "wrong answer" in said


def test_an_attempt_that_was_sampled_is_replayed_too(project: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    lookup = step(call("stock", name="tea"), {"left": 4})
    made = [trajectory(finish("1"), of="tea-train-0"), trajectory(lookup, finish("3"), of="tea-train-2")]
    for kind, records in (("trajectories", made), ("scored", [scored(each) for each in made])):
        write_jsonl(tmp_path / f"{kind}.jsonl.gz", records)
        said = project(task="tea-train-2", attempt=Path(f"{kind}.jsonl.gz"))[1]
        assert f"{kind}.jsonl.gz:3, replayed on task tea-train-2: finished" in said
        assert 'recorded: {"left": 4}' in said
        with pytest.raises(InputError, match="holds no attempt at task tea-train-1"):
            project(task="tea-train-1", attempt=Path(f"{kind}.jsonl.gz"))


def test_an_action_that_could_not_be_read_is_said_again(project: Callable[..., tuple[int, str]]) -> None:
    ids = tuple(tiny_model.tokenizer().encode("I do not know what to do.<|im_end|>"))
    steps = [step(unreadable(), "hint", context_ids=(1,), action_ids=ids)]
    write_jsonl(Path("made.jsonl.gz"), [trajectory(*steps, of="tea-train-0")])
    said = project(attempt=Path("made.jsonl.gz"))[1]
    assert "not read: no JSON object after I" in said


def test_a_reply_that_has_changed_is_shown_beside_the_recorded_one(project: Callable[..., tuple[int, str]]) -> None:
    earlier = {**LOOKED, "observation": {"text": '{"left":2}'}}
    status, said = project(shown={**SHOWN, "steps": [earlier, ANSWERED]})
    assert status == 0
    assert 'recorded: {"left":2}' in said
    assert "note  the first demonstration: the live world replies otherwise than was recorded in step 0" in said


def test_another_task_is_shown_where_it_is_named(project: Callable[..., tuple[int, str]]) -> None:
    assert "prompt of task tea-test-1" in project(task="tea-test-1")[1]
    with pytest.raises(InputError, match=r"--task: the world has no task 'none'"):
        project(task="none")


MENDED: dict[str, tuple[dict[str, Any], str, str]] = {
    # settings, what is said, and what to set
    "one attempt": ({"sample": {"attempts": 1}}, "no contrast", "set sample.attempts to 4 or more"),
    "too few tasks": ({"sample": {"tasks": 9}}, "a round wants 9 training tasks, there are 4", "set sample.tasks to 4"),
    "no room for a prompt": ({"sample": {"max_tokens": 60}}, "0 of 8 calls fit", "set sample.max_tokens to"),
    "actions cut": ({"sample": {"max_step_tokens": 4}}, "it would be cut", "set sample.max_step_tokens to"),
    "no demonstrations": ({"shown": None}, "there are none", "set demonstrations.path"),
    "calls run out": ({"sample": {"max_calls": 1}}, "a demonstration takes 2 steps", "set sample.max_calls to 2"),
    "of a test task": ({"shown": {**SHOWN, "task_id": "tea-test-0"}}, "held out", "leave them out"),
}


@pytest.mark.parametrize("case", MENDED)
def test_what_is_to_be_mended_is_named_with_the_setting(project: Callable[..., tuple[int, str]], case: str) -> None:
    settings, says, fix = MENDED[case]
    status, said = project(**settings)
    assert status == 2
    mend = said[said.index("mend  ") :]
    assert says in mend
    assert fix in mend
    assert "not ready: " in said


def test_demonstrations_that_fit_are_no_reason_to_mend(project: Callable[..., tuple[int, str]]) -> None:
    """The longest prompt with the most actions would need more: that is said, and is no mistake."""
    status, said = project(sample={"max_tokens": 300})
    assert status == 0
    found = re.search(r"note  \d of 8 calls fit .*; nine of ten demonstrations have up to (\d+) in all", said)
    assert found and int(found[1]) < 300
    status, said = project(sample={"max_tokens": int(found[1]) - 1})
    assert status == 2
    mend = said[said.index("mend  ") :]
    assert f"nine of ten demonstrations have up to {found[1]} in all" in mend
    assert "lower sample.max_calls" not in mend  # to what fits, which is less than is demonstrated


UNCHECKED = [{key: value for key, value in line.items() if key != "check"} for line in TASKS]


def test_tasks_that_nobody_can_judge_are_refused_unless_calls_alone_may_earn(
    project: Callable[..., tuple[int, str]],
) -> None:
    status, said = project(tasks=UNCHECKED)
    assert status == 2
    assert "mend  4 training tasks have no check (first tea-train-0), nor a judge: the data gate refuses" in said
    assert "set reward.use: auto" in said
    status, said = project(tasks=UNCHECKED, reward={"use": "auto"})
    assert status == 0
    assert "note  4 training tasks have no check" in said


def test_rounds_that_repeat_tasks_are_a_note(project: Callable[..., tuple[int, str]]) -> None:
    status, said = project(rounds={"r1": {"from": "sft"}, "r2": {"from": "ppo"}})
    assert status == 0
    assert "note  2 rounds of 4 tasks want 8, there are 4: later rounds repeat some" in said


def test_what_tools_say_cannot_steer_the_terminal(project: Callable[..., tuple[int, str]]) -> None:
    hostile = {**LOOKED, "observation": {"text": "\x1b[2J[bold]x"}}
    said = project(shown={**SHOWN, "steps": [hostile, ANSWERED]})[1]
    assert "\x1b" not in said
    assert "[bold]x" in said

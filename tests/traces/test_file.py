"""Demonstrations of the user's own: each line is read, or named with what is wrong with it.

line 1   t1   find {"name": "t1"} -> Oslo   Finish {"answer": "Oslo"}
line 2   t1   Finish {"give_up": true}
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from steptool.core.errors import DataError, WorldError
from steptool.core.types import Observation, Outcome, Reference, StopReason, Task, ToolCall, Trajectory
from steptool.formats.json_call import JsonCall
from steptool.policies import tiny_model
from steptool.testing import reference, task, tool
from steptool.traces.file import TraceFile
from steptool.worlds.base import Session, Split
from steptool.worlds.checks import check_demonstrations

FIND = tool("find", allows={"name": "string"})
SPLITS: dict[Split, list[Task]] = {
    "train": [task("t1", "Where?", FIND)],
    "dev": [],
    "test": [task("t2", "When?", FIND)],
}
STEP = {"thought": "I look.", "call": {"name": "find", "arguments": {"name": "t1"}}, "observation": {"text": "Oslo"}}
END = {"call": {"name": "Finish", "arguments": {"answer": "Oslo"}}}
GIVES_UP = {"call": {"name": "Finish", "arguments": {"give_up": True}}}


class Ours:
    def tasks(self, split: Split) -> list[Task]:
        return SPLITS[split]

    def reference(self, task: Task) -> Reference:
        return reference(task, "Oslo")

    def open(self, task: Task, seed: int) -> Session:
        raise AssertionError("nothing is called again")


def read(path: Path) -> list[Trajectory]:
    """As `prepare` does."""
    tasks = {task.id: task for found in SPLITS.values() for task in found}
    found = list(TraceFile(TraceFile.Config(path=str(path))).read(Ours(), tasks, seed=3))
    check_demonstrations(found, SPLITS, str(path))
    return found


def demonstration(*steps: Any, task_id: Any = "t1", **more: Any) -> str:
    return json.dumps({"task_id": task_id, "steps": steps, **more}) + "\n"


@pytest.mark.parametrize("name", ["ours.jsonl", "ours.jsonl.gz"])
def test_demonstrations_become_trajectories_that_sft_can_encode(name: str, tmp_path: Path) -> None:
    text = demonstration(STEP, END) + demonstration(GIVES_UP)
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    first, second = read(tmp_path / name)
    assert (first.task_id, first.answer, first.stop_reason, first.seed) == ("t1", "Oslo", StopReason.finished, 3)
    assert (second.answer, second.stop_reason, second.conditions) == (None, StopReason.gave_up, None)
    chat = JsonCall(JsonCall.Config(), tiny_model.tokenizer())
    assert [chat.parse(chat.render(step.action)) for step in first.steps] == [step.action for step in first.steps]


def test_the_reference_says_whether_the_answer_is_right_and_no_call_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "ours.jsonl"
    wrong = {"call": {"name": "Finish", "arguments": {"answer": "Bergen"}}}
    path.write_text(demonstration(STEP, END) + demonstration(wrong) + demonstration(GIVES_UP))
    assert [item.outcome for item in read(path)] == [
        Outcome(solved=1.0, evidence="expected Oslo, answered Oslo"),
        Outcome(solved=0.0, evidence="expected Oslo, answered Bergen"),
        Outcome(solved=0.0, evidence="no answer"),
    ]


class Counter:
    """A world whose tool counts its calls, and whose outcome is that count over 4; `broken` worlds answer nothing."""

    def __init__(self, broken: bool = False) -> None:
        self.broken, self.calls, self.closed = broken, 0, 0

    def tasks(self, split: Split) -> list[Task]:
        return SPLITS[split]

    def reference(self, task: Task) -> Reference:
        return reference(task, "Oslo")

    def open(self, task: Task, seed: int) -> Session:
        return self

    async def call(self, call: ToolCall) -> Observation:
        if self.broken:
            raise WorldError("the service is down", fix="start it")
        self.calls += 1
        return Observation(text=f"call {self.calls}")

    async def say(self, message: str) -> str | None:
        return None

    async def close(self, answer: str | None) -> Outcome:
        self.closed += 1
        return Outcome(solved=self.calls / 4, evidence=str(answer))


def test_calls_without_replies_are_made_and_the_world_judges_what_they_did(tmp_path: Path) -> None:
    """call ─ call ─ Finish: no reply is given, so both calls are made, and the outcome is the world's."""
    path, world, call = tmp_path / "ours.jsonl", Counter(), {"call": STEP["call"]}
    path.write_text(demonstration(call, call, END))
    tasks = {task.id: task for found in SPLITS.values() for task in found}
    (found,) = TraceFile(TraceFile.Config(path=str(path))).read(world, tasks, seed=3)
    assert [step.observations[0].text for step in found.steps[:-1]] == ["call 1", "call 2"]
    assert (found.answer, found.outcome, world.closed) == ("Oslo", Outcome(solved=0.5, evidence="Oslo"), 1)


def test_a_world_that_cannot_be_called_is_named_with_the_line(tmp_path: Path) -> None:
    path, world = tmp_path / "ours.jsonl", Counter(broken=True)
    path.write_text(demonstration({"call": STEP["call"]}, END))
    tasks = {task.id: task for found in SPLITS.values() for task in found}
    with pytest.raises(DataError, match=r":1: its calls cannot be made: the service is down\n  fix: start it"):
        list(TraceFile(TraceFile.Config(path=str(path))).read(world, tasks, seed=3))
    assert world.closed == 1


def test_the_revision_of_the_demonstrator_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ours.jsonl"
    path.write_text(demonstration(END))
    before = read(path)
    assert read(path) == before
    path.write_text(demonstration(END) + demonstration(GIVES_UP))
    assert read(path)[0].policy.revision != before[0].policy.revision
    assert TraceFile.content(TraceFile.Config(path=str(path))) == read(path)[0].policy.revision


def test_the_last_line_needs_no_end_and_an_empty_file_holds_none(tmp_path: Path) -> None:
    path = tmp_path / "ours.jsonl"
    path.write_text(demonstration(END).rstrip())
    assert len(read(path)) == 1
    path.write_text("")
    assert read(path) == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("\n", ":2: not JSON"),
        ("[]\n", ":2: Demonstration: "),
        ("3\n", ":2: Demonstration: "),
        ("null\n", ":2: Demonstration: "),
        ("{}\n", ":2: Demonstration: task_id: Field required"),
        (demonstration(END, task_id=3), ":2: Demonstration: task_id: "),
        (demonstration(END, task_id="\x1b[2J"), "which the world does not have"),
        (demonstration(END, task_id="t2"), "demonstration 2 is of test task t2"),
        (demonstration(END, task_id="t9"), "demonstration 2 is of task t9, which the world does not have"),
        (demonstration(END, more=1), ":2: Demonstration: more: Extra inputs"),
        (demonstration(), "its last step is neither Finish nor a message"),
        (demonstration(STEP), "its last step is neither Finish nor a message"),
        (demonstration(END, END), ":2: Demonstration: step 0 is Finish but not the last of 2"),
        (demonstration({}, END), ":2: Demonstration: steps.0.call: Field required"),
        (
            demonstration({**END, "action_ids": [1], "action_logprobs": [0.0]}),
            ":2: Demonstration: steps.0.action_ids: ",
        ),
        (demonstration({**STEP, "call": {"name": "rm", "arguments": {}}}, END), "step 0 calls 'rm'"),
        (demonstration({"call": {"name": "Finish", "arguments": {}}}), "step 0: Finish takes either"),
        ('{"task_id": "t1", "task_id": "t1", "steps": []}\n', ":2: not JSON: 'task_id' is given twice"),
        ('{"task_id": "t1", "steps": NaN}\n', ":2: not JSON: NaN"),
        ('{"task_id": "\\ud800", "steps": []}\n', ":2: not JSON"),
        ("[" * 200_000 + "\n", ":2: not JSON"),
        ('{"task_id": ' + "1" * 4301 + "}\n", ":2: not JSON"),
    ],
)
def test_a_line_that_is_no_demonstration_is_named(line: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "ours.jsonl"
    path.write_text(demonstration(END) + line)
    with pytest.raises(DataError) as caught:
        read(path)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("kind", ["gone", "folder", "pipe", "device"])
def test_what_is_no_file_is_refused_and_not_waited_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "ours.jsonl"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"ours\.jsonl"):
        read(path)


@pytest.mark.parametrize(
    "path", ["data/tasks/demonstrations.jsonl", "models/x", "./data/x", "a/../data/x", ".steptool/x"]
)
def test_demonstrations_are_not_kept_where_stages_write(path: str) -> None:
    with pytest.raises(ValidationError, match=r"path\n.*would be lost"):
        TraceFile.Config(path=path)


@pytest.mark.parametrize("path", ["ours.jsonl", "given/ours.jsonl", "/srv/ours.jsonl.gz", "../ours.jsonl"])
def test_demonstrations_are_kept_anywhere_else(path: str) -> None:
    assert TraceFile.Config(path=path).path == path


def test_a_file_is_named() -> None:
    with pytest.raises(ValidationError, match="path"):
        TraceFile.Config.model_validate({})
    with pytest.raises(ValidationError, match="path"):
        TraceFile.Config(path="")

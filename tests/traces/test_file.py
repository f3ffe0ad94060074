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

from steptool.config.settings import parse_params
from steptool.core.errors import DataError, ParamsError
from steptool.core.types import Revision, StopReason, Task, Tool
from steptool.formats.json_call import ChatFormat
from steptool.policies import tiny_model
from steptool.worlds.demonstrations import read_demonstrations

WORLD = Revision(name="ours", revision="7")
FIND = Tool(name="find", description="", parameters={"type": "object", "properties": {"name": {"type": "string"}}})
SPLITS = {
    "train": [Task(id="t1", subset="own", query="Where?", tools=(FIND,))],
    "dev": [],
    "test": [Task(id="t2", subset="own", query="When?", tools=(FIND,))],
}
STEP = {"thought": "I look.", "call": {"name": "find", "arguments": {"name": "t1"}}, "observation": {"text": "Oslo"}}
END = {"call": {"name": "Finish", "arguments": {"answer": "Oslo"}}}
GIVES_UP = {"call": {"name": "Finish", "arguments": {"give_up": True}}}


def demonstration(*steps: Any, task_id: Any = "t1", **more: Any) -> str:
    return json.dumps({"task_id": task_id, "steps": steps, **more}) + "\n"


@pytest.mark.parametrize("name", ["ours.jsonl", "ours.jsonl.gz"])
def test_demonstrations_become_trajectories_that_sft_can_encode(name: str, tmp_path: Path) -> None:
    text = demonstration(STEP, END) + demonstration(GIVES_UP)
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    first, second = read_demonstrations(tmp_path / name, SPLITS, WORLD, seed=3)
    assert (first.task_id, first.subset, first.answer, first.stop_reason) == ("t1", "own", "Oslo", StopReason.finished)
    assert (second.answer, second.stop_reason, second.world) == (None, StopReason.gave_up, WORLD)
    chat = ChatFormat(tiny_model.tokenizer())
    ids, mask = chat.encode(SPLITS["train"][0], first.steps)
    assert len(ids) == len(mask)
    assert any(mask)


def test_the_last_line_needs_no_end_and_an_empty_file_holds_none(tmp_path: Path) -> None:
    path = tmp_path / "ours.jsonl"
    path.write_text(demonstration(END).rstrip())
    assert len(read_demonstrations(path, SPLITS, WORLD, seed=3)) == 1
    path.write_text("")
    assert read_demonstrations(path, SPLITS, WORLD, seed=3) == []


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
        (demonstration(), "its last step is not Finish"),
        (demonstration(STEP), "its last step is not Finish"),
        (demonstration(END, END), ":2: Demonstration: step 0 is Finish but not the last of 2"),
        (demonstration({"call": STEP["call"]}, END), ":2: Demonstration: step 0 has no observation"),
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
        read_demonstrations(path, SPLITS, WORLD, seed=3)
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
        read_demonstrations(path, SPLITS, WORLD, seed=3)


@pytest.mark.parametrize(
    "path", ["data/tasks/demonstrations.jsonl", "models/x", "./data/x", "a/../data/x", ".steptool/x"]
)
def test_demonstrations_are_not_kept_where_stages_write(path: str) -> None:
    with pytest.raises(ParamsError, match=r"demonstrations\.path: .*would be lost"):
        parse_params(Path("params.yaml"), {"demonstrations": {"path": path}})


@pytest.mark.parametrize("path", ["", "ours.jsonl", "given/ours.jsonl", "/srv/ours.jsonl.gz", "../ours.jsonl"])
def test_demonstrations_are_kept_anywhere_else(path: str) -> None:
    assert parse_params(Path("params.yaml"), {"demonstrations": {"path": path}}).demonstrations.path == path

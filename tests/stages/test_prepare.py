"""Stage `prepare` refuses what a world returns, in exit status 2, and keeps what was there.

request   tool          id
q1        find          q1
q2        find          q1 again, or a name that no call can hold
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from steptool.core.storage import read_jsonl
from steptool.core.types import Reference, Task, Trajectory

pytestmark = pytest.mark.slow

ARMS = {"sft": {"method": "sft", "from": "base", "data": ["demonstrations"]}}
FIND = {"name": "find", "description": "", "category": "Data", "parameters": []}


def request(name: str, **changes: Any) -> dict[str, Any]:
    asked = {"query_id": name, "subset": "G1_tool", "query": f"Find {name}.", "api_list": [FIND], "relevant_apis": []}
    return {**asked, **changes}


def prepare(folder: Path, requests: list[dict[str, Any]], **more: Any) -> subprocess.CompletedProcess[str]:
    replies = [{"name": "find", "arguments": "{}", "responses": [{"text": "yes", "error": "none"}]}]
    for name, rows in (("queries.jsonl.gz", requests), ("tool_responses.jsonl.gz", replies)):
        (folder / name).write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    world = {"use": "recorded", "path": ".", "train_tasks": 1, "dev_tasks": 1, "test_tasks": 1}
    return run_prepare(folder, {"world": world, **more})


def run_prepare(folder: Path, params: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    (folder / "params.yaml").write_text(json.dumps({"arms": ARMS, **params}))
    command = [str(Path(sys.executable).with_name("steptool")), "prepare"]
    quiet = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    return subprocess.run(command, cwd=folder, env=quiet, capture_output=True, text=True, timeout=120, check=False)


def test_a_refused_world_leaves_the_tasks_of_before(tmp_path: Path) -> None:
    good = [request("q1"), request("q2"), request("q3")]
    (tmp_path / "ours.jsonl").write_text(
        json.dumps({"task_id": "q1", "steps": [{"call": {"name": "Finish", "arguments": {"answer": "yes"}}}]})
    )
    done = prepare(tmp_path, good, demonstrations={"use": "file", "path": "ours.jsonl"})
    assert done.returncode == 0, done.stderr
    assert "3 have no check" in done.stdout
    (demonstration,) = read_jsonl(tmp_path / "data/tasks/demonstrations.jsonl", Trajectory)
    assert (demonstration.task_id, demonstration.answer, demonstration.conditions) == ("q1", "yes", None)
    references = read_jsonl(tmp_path / "data/tasks/references.jsonl", Reference)
    assert [reference.task_id for reference in references] == ["q1", "q2", "q3"]
    before = (tmp_path / "data/tasks/train.jsonl").read_bytes()

    unnamed = request("q3", api_list=[{**FIND, "name": "finish"}])
    for requests, more, says in (
        ([*good[:2], request("q1", query="Other?")], {}, "test task q1: train has a task of this id too"),
        ([*good[:2], unnamed], {}, "test task q3: tool 'finish' has the name that ends an attempt"),
        ([good[1], good[0], good[2]], {"demonstrations": {"use": "file", "path": "ours.jsonl"}}, "is of dev task q1"),
        (good, {"demonstrations": {"use": "file", "path": "gone.jsonl"}}, "gone.jsonl: no such file"),
    ):
        done = prepare(tmp_path, requests, **more)
        assert done.returncode == 2, done.stderr
        assert says in done.stderr
        assert "Traceback" not in done.stderr
        assert (tmp_path / "data/tasks/train.jsonl").read_bytes() == before


def test_what_a_policy_may_see_and_what_is_known_are_kept_apart(tmp_path: Path) -> None:
    """Nothing of a reference stands in a task, the answer least of all."""
    done = run_prepare(
        tmp_path,
        {
            "world": {"train_tasks": 8, "dev_tasks": 6, "test_tasks": 6},
            "demonstrations": {"count": 8, "flawed": 0.25},
        },
    )
    assert done.returncode == 0, done.stderr
    assert "8 train, 6 dev, 6 test, 8 demonstrations" in done.stdout
    assert "no exact answer" not in done.stdout
    splits = [read_jsonl(tmp_path / f"data/tasks/{split}.jsonl", Task) for split in ("train", "dev", "test")]
    references = read_jsonl(tmp_path / "data/tasks/references.jsonl", Reference)
    assert [reference.task_id for reference in references] == [task.id for tasks in splits for task in tasks]
    assert all(reference.can_be_checked and reference.relevant_tools for reference in references)
    demonstrations = read_jsonl(tmp_path / "data/tasks/demonstrations.jsonl", Trajectory)
    assert [item.task_id for item in demonstrations] == [task.id for task in splits[0]]
    assert sum(item.outcome.solved == 1.0 for item in demonstrations) == 6


def test_more_demonstrations_than_training_tasks_are_refused(tmp_path: Path) -> None:
    done = run_prepare(tmp_path, {"world": {"train_tasks": 8, "dev_tasks": 6, "test_tasks": 6}})
    assert done.returncode == 2, done.stderr
    assert "demonstrations.count: 320 is above world.train_tasks: 8" in done.stderr
    assert not (tmp_path / "data/tasks").exists()


def test_a_world_without_experts_is_prepared_without_demonstrations(tmp_path: Path) -> None:
    done = prepare(tmp_path, [request("q1"), request("q2"), request("q3")])
    assert done.returncode == 0, done.stderr
    assert "0 demonstrations" in done.stdout

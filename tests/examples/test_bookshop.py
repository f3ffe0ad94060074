"""examples/bookshop: its tasks can be solved as the expert does, and are not solved by doing too much or too little."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steptool.config.settings import load_params
from steptool.core.revision import forget_sources
from steptool.core.types import FINISH, Outcome, ToolCall
from steptool.worlds.functions import FunctionsWorld
from tests.project import ROOT
from tests.test_extension import Project

BOOKSHOP = ROOT / "examples" / "bookshop"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FunctionsWorld]:
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("tools", "stock"):
            sys.modules.pop(name, None)
        forget_sources()
        shutil.copytree(BOOKSHOP, folder, dirs_exist_ok=True)
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        params = load_params(Path("params.yaml"))
        world = params.world.build(params.seed)
        yield world
        world.end()
    for name in ("tools", "stock"):
        sys.modules.pop(name, None)
    forget_sources()


def demonstrations() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (BOOKSHOP / "demonstrations.jsonl").read_text().splitlines()]


async def attempted(world: FunctionsWorld, task_id: str, calls: list[dict[str, Any]], answer: str | None) -> Outcome:
    task = next(task for split in ("train", "dev", "test") for task in world.tasks(split) if task.id == task_id)
    session = world.open(task, seed=0)
    for call in calls:
        await session.call(ToolCall(**call))
    return await session.close(answer)


def test_the_files_are_what_the_script_writes(tmp_path: Path) -> None:
    shutil.copytree(BOOKSHOP, tmp_path, dirs_exist_ok=True)
    files = ("tasks.jsonl", "demonstrations.jsonl")
    for name in files:
        (tmp_path / name).unlink()
    subprocess.run([sys.executable, "write_tasks.py"], cwd=tmp_path, check=True)
    assert [(tmp_path / name).read_text() for name in files] == [(BOOKSHOP / name).read_text() for name in files]


def test_there_are_enough_tasks_to_tell_and_no_book_is_in_training_and_test(shop: FunctionsWorld) -> None:
    from stock import BOOKS, CUSTOMERS  # type: ignore[import-not-found]

    assert len(shop.tasks("test")) >= 150
    names = [title for title, *_ in BOOKS] + list(CUSTOMERS)
    asked = {
        split: {name for name in names for task in shop.tasks(split) if re.search(rf"\b{name}\b", task.query)}
        for split in ("train", "test")
    }
    assert asked["train"] & asked["test"] == set()
    assert all(len(found) > 15 for found in asked.values())


def test_the_expert_solves_what_it_does_not_give_up(shop: FunctionsWorld) -> None:
    async def run() -> list[tuple[bool, float | None]]:
        found = []
        for shown in demonstrations():
            calls = [step["call"] for step in shown["steps"] if step["call"]["name"] != FINISH]
            answer = shown["steps"][-1]["call"]["arguments"].get("answer")
            outcome = await attempted(shop, shown["task_id"], calls, answer)
            found.append((answer is not None, outcome.solved))
        return found

    verdicts = asyncio.run(run())
    assert set(verdicts) == {(True, 1.0), (False, 0.0)}
    assert 0.5 < sum(answered for answered, _ in verdicts) / len(verdicts) < 0.9


def test_a_change_must_be_made_and_made_once(shop: FunctionsWorld) -> None:
    shown = next(
        each
        for each in demonstrations()
        if each["task_id"].startswith("order") and "answer" in each["steps"][-1]["call"]["arguments"]
    )
    calls = [step["call"] for step in shown["steps"][:-1]]

    def solved(made: list[dict[str, Any]]) -> float | None:
        return asyncio.run(attempted(shop, shown["task_id"], made, "done")).solved

    assert solved(calls) == 1
    assert solved([*calls, calls[-1]]) == 0, "ordered twice"
    assert solved(calls[:-1]) == 0, "not ordered"
    assert solved([*calls, {"name": "find", "arguments": {"title": "Dune"}}]) == 1, "looking up changes nothing"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_its_run_makes_a_policy_that_is_better_on_held_out_tasks(tmp_path: Path) -> None:
    """The whole pipeline with SmolLM2, as the README of the example says: about ten minutes on two idle cores."""
    shutil.copytree(BOOKSHOP, tmp_path / "shop")
    made = Project(tmp_path / "shop")
    subprocess.run(["git", "init", "-q"], cwd=made.root, check=True)
    made.run("dvc", "init", "-q")
    made.run("steptool.cli", "run")
    compared = json.loads((made.root / "metrics/evaluation/comparisons.json").read_text())
    (found,) = [each for each in compared if (each["candidate"], each["baseline"]) == ("ppo2", "sft")]
    assert found["groups"]["all"]["low"] > 0, found

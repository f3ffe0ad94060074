"""What stages share: the training tasks that each round samples, and refusals that every stage makes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from steptool.config.arms import arm_of, arms_of, round_of
from steptool.config.places import BASE, DEMONSTRATIONS, REPORT, TASKS
from steptool.config.settings import Params
from steptool.core.errors import DataError, ParamsError, StorageError
from steptool.core.storage import read_jsonl, write_jsonl
from steptool.core.types import Task, Trajectory
from steptool.policies import tiny_model
from steptool.stages import train
from steptool.stages.common import stage
from steptool.stages.rounds import read_tasks, tasks_of_round
from steptool.tracking.run import PARENT_VARIABLE, Tracking
from steptool.worlds.mini import MiniWorld


def test_rounds_take_turns_through_the_training_tasks_and_another_draw_begins_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """draw      0        1        2
    round     r1  r2   r1  r2   r1  r2
    tasks    0-1 2-3  2-3 4-5  4-5 6-7     of eight; a draw is 97 rounds, 194 tasks, which is 2 more than 24 times eight

    Of three rounds the first two have the tasks that they have of two.
    """
    monkeypatch.chdir(tmp_path)
    world = MiniWorld(MiniWorld.Config(train_tasks=8, dev_tasks=6, test_tasks=6), 3)
    write_jsonl(TASKS / "train.jsonl", world.tasks("train"))
    write_jsonl(DEMONSTRATIONS, list[Trajectory]())
    rounds = {name: {"from": "base"} for name in ("r1", "r2", "r3")}
    order = [task.id for task in world.tasks("train")]

    def taken(draw: int, index: int, count: int = 2) -> list[int]:
        some = dict(list(rounds.items())[:count])
        params = Params.model_validate({"sample": {"tasks": 2, "draw": draw}, "rounds": some})
        return [order.index(task.id) for task in tasks_of_round(params, index)]

    assert [taken(draw, index) for draw in range(3) for index in range(2)] == [
        [0, 1], [2, 3], [2, 3], [4, 5], [4, 5], [6, 7],
    ]  # fmt: skip
    assert taken(1, 0, 3) == taken(1, 0, 2)


def test_tasks_with_a_demonstration_come_last_or_where_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    world = MiniWorld(MiniWorld.Config(train_tasks=6, dev_tasks=6, test_tasks=6), 3)
    tasks, demonstrations = world.tasks("train"), world.demonstrations(3, flawed=0.0, seed=3)
    write_jsonl(TASKS / "train.jsonl", tasks)
    write_jsonl(DEMONSTRATIONS, demonstrations)
    shown = [task for task in tasks if task.id in {demo.task_id for demo in demonstrations}]
    others = [task for task in tasks if task not in shown]

    def taken(demonstrated: str) -> list[Task]:
        sample = {"tasks": 6, "demonstrated": demonstrated}
        return tasks_of_round(Params.model_validate({"sample": sample, "rounds": {"r1": {"from": "base"}}}), 0)

    assert taken("last") == [*others, *shown] != tasks
    assert taken("alike") == tasks


def test_a_round_and_an_arm_that_are_not_there_are_refused_by_name(project: Params) -> None:
    with pytest.raises(ParamsError, match="no round 'r9'; there are r1, r2"):
        round_of(project, "r9")
    with pytest.raises(ParamsError, match=r"no round 'r1'; there are none\n  fix: add one, such as rounds: {r1: "):
        round_of(Params(), "r1")
    with pytest.raises(ParamsError, match="no arm 'grpo'; there are sft, ppo1, ppo2, rft"):
        arm_of(project, "grpo")
    with pytest.raises(ParamsError, match="holds no `arms`"):
        arms_of(Params())


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_checkout_that_may_not_be_written_to_is_said_so(
    project: Params, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Root may write anywhere, so the refusal is put in where a stage writes first."""

    def refuse(self: Tracking) -> str:
        raise OSError(number, os.strerror(number), ".steptool")

    monkeypatch.delenv(PARENT_VARIABLE)
    monkeypatch.setattr(Tracking, "pipeline_run_id", refuse)
    said = rf"^\.steptool: {os.strerror(number)}\n  fix: mend the permissions"
    with pytest.raises(StorageError, match=said), stage("report", REPORT, project, uses={}, inputs={}):
        raise AssertionError("nothing is begun")


def test_demonstrations_of_other_tasks_are_refused_by_name(project: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    demonstrations = read_jsonl(DEMONSTRATIONS, Trajectory)
    write_jsonl(TASKS / "train.jsonl", [t for t in read_tasks("train") if t.id != demonstrations[1].task_id])
    BASE.mkdir()
    monkeypatch.setattr(train, "load_tokenizer", lambda folder: tiny_model.tokenizer())
    with pytest.raises(
        DataError, match=f"1 demonstrations are of no training task, first {demonstrations[1].id} of task "
    ):
        train.main("sft")

"""Trajectories, tasks and world must be of one make; what does not fit is named with file, trajectory and task.

trajectory of             then
a task of today           judged
a task that is gone       DataError
another world             DataError: not 0 % solved
an answer that the world  WorldError
cannot check
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from steptool.annotators.rules import unjudged
from steptool.config.places import SCORED, TRAJECTORIES
from steptool.config.settings import Params
from steptool.core.errors import DataError, StepToolError, WorldError
from steptool.core.storage import read_jsonl, write_jsonl
from steptool.core.types import (
    FINISH,
    AnswerCheck,
    Revision,
    ScoredTrajectory,
    Step,
    StopReason,
    Task,
    ToolCall,
    Trajectory,
)
from steptool.stages import annotate
from steptool.stages.rounds import read_tasks, sampling_of
from steptool.worlds import open_world
from steptool.worlds.mini import MiniWorld

SOURCE = TRAJECTORIES / "r1/trajectories.jsonl.gz"
VERIFY = "steptool.worlds.mini.session.MiniSession.verify"


def answered(params: Params, task: Task, **changed: Any) -> Trajectory:
    world = open_world(params.world, params.seed)
    assert isinstance(world, MiniWorld)
    fields: dict[str, Any] = {
        "task_id": task.id,
        "subset": task.subset,
        "steps": (Step(call=ToolCall(name=FINISH, arguments={"answer": world.case(task).answer})),),
        "stop_reason": StopReason.finished,
        "answer": world.case(task).answer,
        "policy": Revision(name="p", revision="1"),
        "world": world.revision,
        "sampling": sampling_of(params),
        "seed": 0,
    }
    return Trajectory.create(**fields | changed)


def test_what_fits_together_is_judged(project: Params) -> None:
    tasks = read_tasks("train")[:3]
    write_jsonl(SOURCE, [answered(project, task) for task in tasks])
    annotate.main("r1")
    assert [s.solved for s in read_jsonl(SCORED / "r1/scored.jsonl.gz", ScoredTrajectory)] == [1.0] * 3


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"task_id": "gone"}, r"its task is not among the 24 of data/tasks"),
        ({"world": Revision(name="mini", revision="old")}, r"made in world mini old, params.yaml now gives mini \w+"),
        ({"world": Revision(name="recorded", revision="1")}, r"made in world recorded 1"),
    ],
)  # fmt: skip
def test_trajectories_of_something_else_are_no_failures(project: Params, changed: dict[str, Any], found: str) -> None:
    task = read_tasks("train")[0]
    stranger = answered(project, task, **changed)
    write_jsonl(SOURCE, [answered(project, task), stranger])
    with pytest.raises(DataError, match=found) as refused:
        annotate.main("r1")
    assert f"{SOURCE}: trajectory {stranger.id} of task {stranger.task_id}" in str(refused.value)
    assert not (SCORED / "r1").exists()


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError


def raises(fault: BaseException) -> Callable[[Any, Any], Any]:
    def verify(self: Any, answer: Any) -> Any:
        raise fault

    return verify


@pytest.mark.parametrize(
    "verify",
    [
        raises(ValueError("could not convert string to float: 'Nora Lund'")),
        raises(WorldError("database gone")),
        raises(KeyError("x")),
        raises(SystemExit(0)),
        raises(Unprintable()),
        lambda self, answer: "yes",
        lambda self, answer: float("nan"),
        lambda self, answer: 2.0,
        lambda self, answer: -1,
        lambda self, answer: [1.0],
    ],
)
def test_an_answer_that_the_world_fails_to_check_is_named(
    project: Params, monkeypatch: pytest.MonkeyPatch, verify: Callable[[Any, Any], Any]
) -> None:
    trajectory = answered(project, read_tasks("train")[0])
    write_jsonl(SOURCE, [trajectory])
    monkeypatch.setattr(VERIFY, verify)
    with pytest.raises(StepToolError) as refused:
        annotate.main("r1")
    assert f"{SOURCE}: trajectory {trajectory.id} of task {trajectory.task_id}" in str(refused.value)
    assert "fix:" in str(refused.value)


def test_a_number_that_expects_a_name_is_named(project: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """`prepare` refuses such a task; one that comes some other way is named here."""
    task = next(t for t in read_tasks("train") if t.answer_check)
    trajectory = answered(project, task, answer="12")
    wrong = task.model_copy(update={"answer_check": AnswerCheck.model_construct(kind="number", expected="Nora Lund")})
    monkeypatch.setattr(MiniWorld, "case", lambda self, task: type("Case", (), {"task": wrong})())
    write_jsonl(SOURCE, [trajectory])
    with pytest.raises(WorldError, match=f"task {task.id}.*could not convert string to float"):
        annotate.main("r1")


def test_an_attempt_without_an_answer_asks_the_world_nothing(project: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    task = read_tasks("train")[0]
    write_jsonl(SOURCE, [answered(project, task, steps=(), answer=None, stop_reason=StopReason.world_error)])
    monkeypatch.setattr(MiniWorld, "reset", raises(WorldError("database gone")))
    annotate.main("r1")


def test_answers_that_nothing_can_check_are_counted_apart(
    project: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(SOURCE, [answered(project, task) for task in read_tasks("train")[:3]])
    monkeypatch.setattr(VERIFY, lambda self, answer: None)
    annotate.main("r1")
    assert "3 answers count as unsolved because nothing here can check them" in capsys.readouterr().out
    assert len(unjudged(read_jsonl(SCORED / "r1/scored.jsonl.gz", ScoredTrajectory))) == 3

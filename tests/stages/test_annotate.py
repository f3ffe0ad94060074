"""Trajectories, tasks and references must belong together; what does not is named with file, trajectory and task.

trajectory of             then
a task of today           judged by the outcome that its session recorded
a task that is gone       DataError: not 0 % solved
no verdict                stays without one, and is counted apart
"""

from __future__ import annotations

import pytest

from steptool.annotators.rules import Rules
from steptool.config.places import SCORED, TRAJECTORIES
from steptool.config.settings import Params
from steptool.core.errors import DataError
from steptool.core.plugins import revision_of
from steptool.core.storage import read_jsonl, write_jsonl
from steptool.core.types import ScoredTrajectory, StopReason, Trajectory
from steptool.stages import annotate
from steptool.stages.rounds import read_tasks
from steptool.testing import finish, step, trajectory, unreadable

SOURCE = TRAJECTORIES / "r1/trajectories.jsonl.gz"


def answered(number: int, solved: float | None) -> Trajectory:
    return trajectory(finish("x"), of=read_tasks("train")[number], solved=solved)


def scored() -> list[ScoredTrajectory]:
    return read_jsonl(SCORED / "r1/scored.jsonl.gz", ScoredTrajectory)


def test_the_outcome_of_the_session_is_the_verdict(project: Params) -> None:
    write_jsonl(SOURCE, [answered(0, 1.0), answered(1, 0.0), answered(2, 0.5)])
    annotate.main("r1")
    assert [each.solved for each in scored()] == [1.0, 0.0, 0.5]


def test_the_annotator_is_named_by_its_computed_revision(project: Params) -> None:
    write_jsonl(SOURCE, [answered(0, 1.0)])
    annotate.main("r1")
    (record,) = scored()
    assert record.annotator == revision_of(Rules(Rules.Config()))
    assert record.annotator != revision_of(Rules(Rules.Config(consulted=0.4)))
    assert record.annotator.name == "rules"


def test_a_trajectory_of_a_task_that_is_gone_is_no_failure(project: Params) -> None:
    stranger = trajectory(finish("x"), of="gone", solved=1.0)
    write_jsonl(SOURCE, [answered(0, 1.0), stranger])
    with pytest.raises(DataError, match="its task is not among the 24") as refused:
        annotate.main("r1")
    assert f"{SOURCE}: trajectory {stranger.id} of task gone" in str(refused.value)
    assert not (SCORED / "r1").exists()


def test_an_attempt_that_a_fault_ended_is_not_solved_and_without_a_step_not_judged(project: Params) -> None:
    """Every task here has a check."""
    task, fault = read_tasks("train")[0], StopReason.world_error
    write_jsonl(SOURCE, [trajectory(step(unreadable()), of=task, stop=fault), trajectory(of=task, stop=fault)])
    annotate.main("r1")
    assert [each.solved for each in scored()] == [0.0, None]


def test_answers_that_nothing_can_check_are_counted_apart(project: Params, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(SOURCE, [answered(0, None), answered(1, 1.0), answered(2, None)])
    annotate.main("r1")
    assert "1 trajectories, 100.0% solved; 2 more have no verdict" in capsys.readouterr().out
    assert [each.solved for each in scored()] == [None, 1.0, None]


def test_where_nothing_can_check_any_answer_no_solve_rate_is_told(
    project: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(SOURCE, [answered(0, None)])
    annotate.main("r1")
    assert "1 trajectories, none with a verdict ->" in capsys.readouterr().out

"""A round of imported traces goes through every stage of a round, and is asked nothing that only a sample can answer.

log        task of         label   what becomes of it
attempt    train 0         none    judged by the check of the task
attempt    train 0         good    the check knows better
attempt    train 1         none    calls a tool, does not end
attempt    test 0          none    held out
"""

from __future__ import annotations

from pathlib import Path

import pytest

from steptool.config.graph import dvc_document, dvc_text
from steptool.config.places import PARAMS, SCORED, TRAJECTORIES, VALIDATED
from steptool.config.settings import Params, load_params
from steptool.core.errors import DataError
from steptool.core.storage import read_jsonl
from steptool.core.types import ScoredTrajectory, Task, Trajectory
from steptool.stages import annotate, sample, validate
from steptool.stages.rounds import read_references, read_tasks
from steptool.testing import call, finish, step, trajectory
from steptool.traces import folder

LOG = Path("traces/log")


@pytest.fixture
def imported(project: Params) -> list[Task]:
    """The training tasks that the log has attempts at; params.yaml names it as the round `log`."""
    first, second, *_ = [task for task in read_tasks("train") if read_references()[task.id].answer_check]
    held_out = read_tasks("test")[0]
    check = read_references()[first.id].answer_check
    assert check is not None
    right = ", ".join(check.expected) if check.kind == "set" else str(check.expected)
    some = call(second.tools[0].name)
    attempts = [
        trajectory(step(some, {"id": 1}), finish(right), of="t-1", conditions=None, policy="gpt"),
        trajectory(finish("zzz"), of="t-1", conditions=None, solved=1.0, policy="claude"),
        trajectory(step(some, {"id": 1}), of="t-2", conditions=None, policy="gpt"),
        trajectory(finish("zzz"), of="t-3", conditions=None, policy="gpt"),
    ]
    LOG.mkdir(parents=True)
    asked = zip(("t-1", "t-2", "t-3"), (first, second, held_out), strict=True)
    folder.write_tasks(LOG, [{"id": id, "query": f" {task.query.upper()}"} for id, task in asked], first.tools)
    folder.write_trajectories(LOG, attempts)
    text = PARAMS.read_text().replace("rounds:", "rounds:\n  log: {traces: traces/log}", 1)
    PARAMS.write_text(text)
    Path("dvc.yaml").write_text(dvc_text(dvc_document(load_params(PARAMS))))
    return [first, second]


def test_its_attempts_are_those_at_training_tasks_judged_by_their_checks(
    imported: list[Task], capsys: pytest.CaptureFixture[str]
) -> None:
    sample.main("log")
    found = read_jsonl(TRAJECTORIES / "log" / "trajectories.jsonl.gz", Trajectory)
    assert [(each.task_id, each.attempt) for each in found] == [
        (imported[0].id, 0), (imported[0].id, 1), (imported[1].id, 0)
    ]  # fmt: skip
    assert [each.outcome.solved for each in found[:2]] == [1.0, 0.0]
    assert "3 imported trajectories of 2 tasks; left out 1 of tasks that are held out" in capsys.readouterr().out


def test_it_is_judged_and_validated_like_any_round_though_nobody_sampled_it(
    imported: list[Task], capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in (sample, annotate, validate):
        stage.main("log")
    scored = read_jsonl(VALIDATED / "log" / "scored.jsonl.gz", ScoredTrajectory)
    assert scored == read_jsonl(SCORED / "log" / "scored.jsonl.gz", ScoredTrajectory)
    assert [each.solved for each in scored] == [1.0, 0.0, 0.0]
    said = capsys.readouterr().out
    fine = said.partition("  fine ")[2].splitlines()[0]
    assert all(name in fine for name in ("weights", "engine", "contrast")), "nothing about a policy that was sampled"
    assert "expectations hold for 3 trajectories" in said


def test_a_log_of_other_tasks_is_refused(imported: list[Task]) -> None:
    strange = [{"id": f"t-{number}", "query": f"Strange {number}?"} for number in (1, 2, 3)]
    folder.write_tasks(LOG, strange, imported[0].tools)
    with pytest.raises(DataError, match="none of 4 attempts is of a training task"):
        sample.main("log")
    assert not (TRAJECTORIES / "log").exists()

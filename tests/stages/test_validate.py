"""The gate reads the round before it: what cannot be a solve rate stops it, and never counts as no drift."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steptool.annotators.rules import annotate
from steptool.config.places import SCORED, VALIDATED
from steptool.config.settings import Params
from steptool.core.errors import DataError, ValidationFailed
from steptool.core.storage import write_jsonl
from steptool.core.types import FINISH, Revision, Step, StopReason, ToolCall, Trajectory
from steptool.stages import validate
from steptool.stages.rounds import read_tasks, sampling_of

PREVIOUS = VALIDATED / "r1/summary.json"
WHOLE = {"solve_rate": 0.5, "trajectories": 4}


def write_round(params: Params, verdict: float | None) -> None:
    task = read_tasks("train")[0]
    trajectory = Trajectory.create(
        task_id=task.id,
        subset=task.subset,
        steps=(Step(call=ToolCall(name=FINISH, arguments={"answer": "x"})),),
        stop_reason=StopReason.finished,
        answer="x",
        policy=Revision(name="p", revision="1"),
        world=Revision(name="mini", revision="1"),
        sampling=sampling_of(params),
        seed=0,
    )
    write_jsonl(SCORED / "r2/scored.jsonl.gz", [annotate(trajectory, task, verdict)])


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[]", '"text"', "3", "null", "NaN", "[{}]", "<<<<<<< HEAD", '{"solve_rate": 0.5',
        *(json.dumps(WHOLE | {"solve_rate": rate}) for rate in (
            float("nan"), float("inf"), -0.1, 1.1, None, "0.5", True, [], {})),
        *(json.dumps(WHOLE | {"trajectories": count}) for count in (0, -1, 0.5, None, "4", True)),
        json.dumps({"solve_rate": 0.5}),
        json.dumps(WHOLE | {"another": 1}),
    ],
)  # fmt: skip
def test_a_round_before_that_cannot_be_read_stops_the_gate(project: Params, text: str) -> None:
    write_round(project, 1.0)
    PREVIOUS.parent.mkdir(parents=True)
    PREVIOUS.write_text(text)
    with pytest.raises(DataError) as refused:
        validate.main("r2")
    assert str(PREVIOUS) in str(refused.value)
    assert "fix:" in str(refused.value)
    assert not (VALIDATED / "r2").exists()


def test_answers_that_nothing_can_check_are_not_trained_on(project: Params) -> None:
    write_round(project, None)
    PREVIOUS.parent.mkdir(parents=True)
    PREVIOUS.write_text(json.dumps(WHOLE))
    with pytest.raises(ValidationFailed, match=r"1 of 1 answers count as unsolved because nothing here can check"):
        validate.main("r2")
    assert not Path(VALIDATED / "r2").exists()

"""What `evaluate` and `select` write, and when they refuse to.

arm       attempts lost    evaluate.max_broken    then
ppo1      0 of 12          0.02                   broken: 0.0 in ppo1.json and summary.json
ppo1      1 of 12          0.02                   nothing is written, exit status 1
ppo1      1 of 12          0.1                    broken: 0.0833
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from steptool.config.places import COMPARISONS, EVALUATION, PARAMS, SELECTION
from steptool.config.settings import Params
from steptool.core.errors import ParamsError, StepToolError
from steptool.core.storage import read_jsonl, read_record
from steptool.core.types import ScoredTrajectory, StopReason, Task, Trajectory
from steptool.evaluation.metrics import Evaluation
from steptool.stages.rounds import read_tasks
from steptool.stages.table import results_table
from steptool.testing import call, finish, step, trajectory
from tests.stages.conftest import Attempt

Measure = Callable[..., None]
ARMS = ["sft", "ppo1", "ppo2", "rft"]
METRICS = """
class Retries:
    describes = "steps an attempt"
    is_rate = False

    def __init__(self, config):
        pass

    def fraction(self, scored, task, reference):
        return 10 * len(scored.trajectory.steps), 1
"""


def answers(arm: str, task: Task) -> Trajectory | None:
    """Every arm answers `x` and is wrong."""
    return None


def solves(skill: dict[str, int]) -> Attempt:
    """So many of the first tasks are solved by each arm."""
    place = {task.id: index for split in ("dev", "test") for index, task in enumerate(read_tasks(split))}

    def attempt(arm: str, task: Task) -> Trajectory:
        solved = place[task.id] < skill.get(arm, 0)
        return trajectory(finish("x"), of=task, solved=float(solved))

    return attempt


def loses(of: str, count: int) -> Attempt:
    """The engine fails on every attempt of one arm at the first `count` tasks."""
    first = [task.id for task in read_tasks("test")[:count]]

    def attempt(arm: str, task: Task) -> Trajectory | None:
        if arm != of or task.id not in first:
            return None
        return trajectory(
            of=task, stop=StopReason.engine_error, policy=f"models/{arm}", error="RuntimeError: device lost"
        )

    return attempt


def change(section: str, **values: Any) -> None:
    yaml = YAML()
    settings = yaml.load(PARAMS)
    settings[section] = {**settings.get(section, {}), **values}
    yaml.dump(settings, PARAMS)


def summary(of: Path = EVALUATION) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads((of / "summary.json").read_text())
    return found


def test_every_arm_is_measured_and_the_pairs_of_params_are_compared(project: Params, measure: Measure) -> None:
    measure(solves({"sft": 1, "ppo1": 2, "ppo2": 4, "rft": 2}))
    rates = {name: row["pass_rate"] for name, row in summary().items()}
    assert rates.keys() == set(ARMS)
    assert rates["sft"] < rates["ppo1"] == rates["rft"] < rates["ppo2"]
    compared = [(each["candidate"], each["baseline"]) for each in json.loads((EVALUATION / COMPARISONS).read_text())]
    assert compared == [("ppo2", "sft"), ("ppo2", "rft"), ("ppo1", "sft"), ("rft", "sft")]
    evaluation = read_record(EVALUATION / "ppo2.json", Evaluation)
    assert (evaluation.split, evaluation.attempts, evaluation.annotator.name) == ("test", 1, "rules")
    assert evaluation.conditions.sampling.temperature == 0
    assert evaluation.policy.name == "models/ppo2"
    assert len(read_jsonl(EVALUATION / "ppo2.trajectories.jsonl.gz", ScoredTrajectory)) == 12


def test_a_policy_that_is_there_already_is_an_arm_too(project: Params, measure: Measure) -> None:
    Path("theirs").mkdir()
    Path("theirs/config.json").write_text("theirs")
    change("arms", theirs={"folder": "theirs"})
    measure(solves({"theirs": 3}))
    assert summary().keys() == {*ARMS, "theirs"}
    assert read_record(EVALUATION / "theirs.json", Evaluation).policy.name == "theirs"


def test_select_measures_on_dev_and_leaves_the_held_out_tasks_alone(project: Params, measure: Measure) -> None:
    change("register", best_on="dev", arm=None)
    measure(solves({"rft": 3}), "select")
    assert not EVALUATION.exists()
    assert not (SELECTION / COMPARISONS).exists()
    evaluation = read_record(SELECTION / "rft.json", Evaluation)
    assert evaluation.split == "dev"
    assert evaluation.solved.keys() == {task.id for task in read_tasks("dev")}
    assert summary(SELECTION).keys() == set(ARMS)


def test_a_metric_of_the_project_stands_beside_the_others(project: Params, measure: Measure) -> None:
    Path("own_metrics.py").write_text(METRICS)
    change("metrics", retries={"use": "own_metrics:Retries"})
    measure(answers)
    assert summary()["sft"]["retries"] == 10
    evaluation = read_record(EVALUATION / "sft.json", Evaluation)
    assert evaluation.measures["retries"].describes == "steps an attempt"
    assert evaluation.metrics["I1"]["retries"].low == 10


@pytest.mark.parametrize("name", ["pass_rate", "broken", "pass_rate_i1"])
def test_a_metric_of_the_project_takes_no_name_that_is_taken(project: Params, measure: Measure, name: str) -> None:
    Path("own_metrics.py").write_text(METRICS)
    change("metrics", **{name: {"use": "own_metrics:Retries"}})
    with pytest.raises(ParamsError, match=f"metrics.{name}"):
        measure(answers)


@pytest.mark.parametrize(("arm", "count"), [("sft", 12), ("rft", 1)])
def test_an_evaluation_that_lost_attempts_writes_nothing(
    project: Params, measure: Measure, arm: str, count: int
) -> None:
    EVALUATION.mkdir(parents=True)
    (EVALUATION / "summary.json").write_text("the old one")
    with pytest.raises(StepToolError) as refused:
        measure(loses(arm, count))
    said = str(refused.value)
    assert refused.value.exit_code == 1
    for part in (f"{count} of 12 attempts", f"models/{arm}", "RuntimeError: device lost", "at most 2.0%"):
        assert part in said
    assert [file.read_text() for file in EVALUATION.iterdir()] == ["the old one"]
    assert not list(EVALUATION.parent.glob(".*")), "nothing half-written is left"


def test_what_was_lost_under_the_bar_is_written_down(project: Params, measure: Measure) -> None:
    change("evaluate", max_broken=0.1)
    measure(loses("ppo1", 1))
    assert {name: row["broken"] for name, row in summary().items()} == {
        "sft": 0.0, "ppo1": pytest.approx(1 / 12), "ppo2": 0.0, "rft": 0.0,
    }  # fmt: skip
    assert json.loads((EVALUATION / "ppo1.json").read_text())["broken"] == pytest.approx(1 / 12)


def test_tasks_without_a_verdict_are_measured_and_compared_on_grounded_answers(
    project: Params, measure: Measure, capsys: pytest.CaptureFixture[str]
) -> None:
    def attempt(arm: str, task: Task) -> Trajectory:
        shown = step(call(task.tools[0].name), {"title": "zanzibar"})
        return trajectory(shown, finish("Zanzibar" if arm == "ppo2" else "x"), of=task, solved=None)

    measure(attempt)
    assert "of which none have a verdict" in capsys.readouterr().out
    rows = summary()
    assert {name: row["grounded"] for name, row in rows.items()} == {"sft": 0, "ppo1": 0, "ppo2": 1, "rft": 0}
    assert all("pass_rate" not in row and row["tasks_with_verdict"] == 0 for row in rows.values())
    first, *_ = json.loads((EVALUATION / COMPARISONS).read_text())
    assert (first["candidate"], first["measure"], first["won"], first["lost"]) == ("ppo2", "grounded", 12, 0)
    table = results_table()
    assert "ppo2 gives grounded answers to 100 % of 12" in table.replace("\n", " ")
    assert "Whether these answers are right, nobody has judged." in table.replace("\n", " ")


def test_where_half_of_the_tasks_have_a_verdict_arms_are_compared_on_these(
    project: Params, measure: Measure, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = {task.id for task in read_tasks("test")[:6]}
    measure(
        lambda arm, task: trajectory(finish("x"), of=task, solved=float(arm == "ppo2") if task.id in judged else None)
    )
    assert "of which 6 have a verdict" in capsys.readouterr().out
    assert {name: row["pass_rate"] for name, row in summary().items()} == {"sft": 0, "ppo1": 0, "ppo2": 1, "rft": 0}
    first, *_ = json.loads((EVALUATION / COMPARISONS).read_text())
    assert (first["measure"], first["won"], first["tied"]) == ("solved", 6, 0)
    table = results_table().replace("\n", " ")
    assert "ppo2 solves 100 % of the 6 of 12 unseen tasks that have a verdict, sft 0 %" in table

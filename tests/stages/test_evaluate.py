"""What `evaluate` writes, and when it refuses to.

policy    attempts lost    evaluate.max_broken    then
r1        0 of 12          0.02                   broken: 0.0 in r1.json and summary.json
r1        1 of 12          0.02                   nothing is written, exit status 1
r1        1 of 12          0.1                    broken: 0.0833
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from ruamel.yaml import YAML

from steptool.config.places import EVALUATION, PARAMS, TASKS
from steptool.config.settings import Params
from steptool.core.errors import DataError, StepToolError
from steptool.core.storage import write_jsonl
from steptool.core.types import AnswerCheck
from steptool.rollouts.rollout import Generation
from steptool.stages.rounds import read_tasks
from tests.stages.conftest import Act, answers

EvaluateWith = Callable[[Act], None]


def lose(policy_name: str, count: int) -> Act:
    """An engine that fails on every attempt of one policy at the first `count` tasks."""
    queries = [task.query for task in read_tasks("test")[:count]]

    def act(policy: str, prompt: str, ids: tuple[int, ...]) -> Generation | Exception:
        lost = policy == policy_name and any(query in prompt for query in queries)
        return RuntimeError("device lost") if lost else answers()

    return act


def set_bar(value: float) -> None:
    yaml = YAML()
    settings = yaml.load(PARAMS)
    settings["evaluate"]["max_broken"] = value
    yaml.dump(settings, PARAMS)


@pytest.mark.parametrize(("policy", "count"), [("sft", 12), ("rft", 1)])
def test_an_evaluation_that_lost_attempts_writes_nothing(
    project: Params, evaluate_with: EvaluateWith, policy: str, count: int
) -> None:
    EVALUATION.mkdir(parents=True)
    (EVALUATION / "summary.json").write_text("the old one")
    with pytest.raises(StepToolError) as refused:
        evaluate_with(lose(policy, count))
    said = str(refused.value)
    assert refused.value.exit_code == 1
    for part in (f"{count} of 12 attempts", f"models/{policy}", "RuntimeError: device lost", "at most 2.0%"):
        assert part in said
    assert [file.read_text() for file in EVALUATION.iterdir()] == ["the old one"]
    assert not list(EVALUATION.parent.glob(".*")), "nothing half-written is left"


def test_what_was_lost_under_the_bar_is_written_down(project: Params, evaluate_with: EvaluateWith) -> None:
    set_bar(0.1)
    evaluate_with(lose("r1", 1))
    summary = json.loads((EVALUATION / "summary.json").read_text())
    assert {name: row["broken"] for name, row in summary.items()} == {
        "sft": 0.0, "r1": pytest.approx(1 / 12), "r2": 0.0, "rft": 0.0,
    }  # fmt: skip
    assert json.loads((EVALUATION / "r1.json").read_text())["broken"] == pytest.approx(1 / 12)


def test_tasks_without_a_check_are_refused_before_anything_is_sampled(
    project: Params, evaluate_with: EvaluateWith
) -> None:
    first, *others = read_tasks("test")
    write_jsonl(TASKS / "test.jsonl", [*others, first.model_copy(update={"answer_check": AnswerCheck(kind="judge")})])
    asked: list[str] = []

    def act(policy: str, prompt: str, ids: tuple[int, ...]) -> Generation:
        asked.append(prompt)
        return answers()

    with pytest.raises(DataError, match=rf"test.jsonl: 1 of 12 tasks need a judge, task {first.id} first"):
        evaluate_with(act)
    assert not asked


def test_answers_that_the_world_cannot_check_are_no_zeros(
    project: Params, evaluate_with: EvaluateWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steptool.worlds.mini.session.MiniSession.verify", lambda self, answer: None)
    with pytest.raises(DataError, match=r"12 of 12 answers cannot be checked"):
        evaluate_with(lose("none", 0))
    assert not EVALUATION.exists()

"""The gate reads the round before it: what cannot be a solve rate stops it, and never counts as no drift."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steptool.config.places import CANARY, PARAMS, PROMPTS, SCORED, TRAJECTORIES, VALIDATED
from steptool.config.settings import Params, apply_profile
from steptool.core.errors import DataError, ValidationFailed
from steptool.core.storage import read_json, write_json, write_jsonl
from steptool.policies.asked import Asked
from steptool.stages import validate
from steptool.stages.rounds import Prompts, read_tasks
from steptool.testing import finish, scored, trajectory

PREVIOUS = VALIDATED / "r1/summary.json"
WHOLE = {"solve_rate": 0.5, "trajectories": 4}


def write_round(name: str, verdict: float | None) -> None:
    tokens = {"context_ids": (1, 2), "action_ids": (3,)}
    made = [trajectory(finish("x", **tokens), of=task, solved=verdict) for task in read_tasks("train")]
    write_jsonl(SCORED / name / "scored.jsonl.gz", [scored(each) for each in made])


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[]", '"text"', "3", "null", "NaN", "[{}]", "<<<<<<< HEAD", '{"solve_rate": 0.5',
        *(json.dumps(WHOLE | {"solve_rate": rate}) for rate in (
            float("nan"), float("inf"), -0.1, 1.1, "0.5", True, [], {})),
        *(json.dumps(WHOLE | {"trajectories": count}) for count in (0, -1, 0.5, None, "4", True)),
        json.dumps({"solve_rate": 0.5}),
        json.dumps(WHOLE | {"another": 1}),
    ],
)  # fmt: skip
def test_a_round_before_that_cannot_be_read_stops_the_gate(project: Params, text: str) -> None:
    write_round("r2", 1.0)
    PREVIOUS.parent.mkdir(parents=True)
    PREVIOUS.write_text(text)
    with pytest.raises(DataError) as refused:
        validate.main("r2")
    assert str(PREVIOUS) in str(refused.value)
    assert "fix:" in str(refused.value)
    assert not (VALIDATED / "r2").exists()


def test_the_round_before_in_params_is_the_one_that_a_solve_rate_is_held_against(project: Params) -> None:
    """max_drift is 1 in the tiny profile, so a leap from 0 to 1 is allowed, but it is looked at."""
    write_round("r1", 0.0)
    validate.main("r1")
    assert json.loads(PREVIOUS.read_text()) == {"solve_rate": 0.0, "trajectories": 24}
    assert "since the previous round" not in Path(VALIDATED / "r1/validation.html").read_text()
    write_round("r2", 0.75)
    validate.main("r2")
    assert "since the previous round (0.000)" in Path(VALIDATED / "r2/validation.html").read_text()


def test_answers_that_nothing_can_check_are_not_trained_on(project: Params) -> None:
    write_round("r1", None)
    with pytest.raises(ValidationFailed, match=r"✗ Every attempt has a verdict"):
        validate.main("r1")
    assert not Path(VALIDATED / "r1").exists()
    assert Path(".steptool/failed/validation-r1.html").exists()


def test_answers_that_nothing_can_check_may_be_rewarded_by_their_calls(
    project: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a round after them is held against no solve rate."""
    Path("auto.yaml").write_text("reward: {use: auto}\n")
    PARAMS.write_text(apply_profile(PARAMS, Path("auto.yaml")))
    write_round("r1", None)
    validate.main("r1")
    assert json.loads(PREVIOUS.read_text()) == {"solve_rate": None, "trajectories": 24}
    assert "24 trajectories, 0 rewarded by their outcome, 24 by their calls alone" in capsys.readouterr().out
    write_round("r2", 0.75)
    validate.main("r2")
    assert "24 rewarded by their outcome, 0 by their calls alone" in capsys.readouterr().out
    assert "since the previous round" not in Path(VALIDATED / "r2/validation.html").read_text()


def test_the_diagnosis_reads_what_sampling_noted_and_the_round_before(
    project: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    write_round("r1", 0.0)
    validate.main("r1")
    write_round("r2", 0.75)
    write_json(TRAJECTORIES / "r2" / PROMPTS, Prompts(shortened={"shop.find: its description": 3}).model_dump())
    write_json(TRAJECTORIES / "r2" / CANARY, Asked(tokens=64, difference=0.1, moved=0.6).model_dump())
    capsys.readouterr()
    validate.main("r2")
    said, page = capsys.readouterr().out, Path(VALIDATED / "r2/validation.html").read_text()
    assert said.startswith("diagnosis of r2: ")
    assert "shortened in prompts: in up to 3 prompts" in said
    assert "100% of the attempts answer or give up without a single call, 100% in the previous round" in said
    assert "shop.find: its description" in page
    assert "its training moved 0.6 nats" in page
    assert {"prompts", "canary", "previous attempts"} <= read_json(VALIDATED / "r2/manifest.json")["inputs"].keys()


def test_a_round_that_may_not_be_trained_on_is_diagnosed_too(
    project: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    write_round("r1", None)
    with pytest.raises(ValidationFailed):
        validate.main("r1")
    assert "nothing has a verdict" in capsys.readouterr().out
    assert "Nothing has a verdict" in Path(".steptool/failed/validation-r1.html").read_text()


def test_the_page_and_the_terminal_say_what_the_step_rewards_are_worth(
    project: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    write_round("r1", 0.5)
    validate.main("r1")
    said = "What the step rewards of this data are worth cannot be said: no task has 4 attempts with a verdict."
    assert said in capsys.readouterr().out
    assert said in Path(VALIDATED / "r1/validation.html").read_text()

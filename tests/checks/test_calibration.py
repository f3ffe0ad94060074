"""What step rewards are worth, in attempts.

the bare outcome's agreement   of 2 attempts .6, of 3 .8: squares .36, .64 = c / (1 + k), 2 c / (2 + k): k = 7, c = 2.88
a setting with square q        is worth 1 + 7 q / (2.88 - q) attempts: .36 is 2, .64 is 3, .8 is 3.69, .09 is 1.23
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from steptool import testing
from steptool.checks.calibration import Calibration, calibrate, in_attempts, with_verdict
from steptool.checks.credit import Agreement, Outcome, outcome_of
from steptool.core.types import ScoredTrajectory, StopReason
from steptool.rewards.calibrated import Calibrated
from steptool.rewards.costs import Costs
from steptool.rewards.grounded import Grounded
from steptool.rewards.paper import Paper
from steptool.testing import call, finish, judgement, step
from steptool.training.siblings import Comparison

FREE: dict[str, Any] = {"step_cost": 0.0, "budget_cost": 0.0, "gamma": 1.0}
PAPER = Paper(Paper.Config(alpha=1.0, **FREE))
WHOLE = Comparison(lambda_step=1.0)
LEFT, RIGHT = 10, 12
"""The token by which an attempt looks up one thing or another."""


def attempt(task: int, number: int, left: bool, solved: float | None, score: float = 0.0) -> ScoredTrajectory:
    look = step(call("find", n=int(left)), "{}", context_ids=(1, 2), action_ids=(LEFT if left else RIGHT,))
    made = testing.trajectory(
        *(look, finish("x", context_ids=(3,), action_ids=(7,))), of=f"t{task}", attempt=number, solved=solved
    )
    return testing.scored(made, judgement(success=0.0, contribution=score), judgement(solved=solved))


def world(
    score: Callable[[bool, np.random.Generator], float], *, attempts: int = 6, tasks: int = 40
) -> list[ScoredTrajectory]:
    """Left solves a task with a chance of .7, right with .2; what a step scores follows from where it looked."""
    rng = np.random.default_rng(5)
    made = []
    for task in range(tasks):
        for number in range(attempts):
            left = bool(rng.random() < 0.5)
            solved = float(rng.random() < (0.7 if left else 0.2))
            made.append(attempt(task, number, left, solved, score(left, rng)))
    return made


def knows(left: bool, _: np.random.Generator) -> float:
    return float(left)


def errs(left: bool, _: np.random.Generator) -> float:
    return float(not left)


def guesses(_: bool, rng: np.random.Generator) -> float:
    return float(rng.random())


def agreed(value: float) -> Agreement:
    return Agreement(value, np.array([value, value]))


@pytest.mark.parametrize(
    ("value", "attempts"),
    [(0.6, 2), (0.8, 3), (math.sqrt(0.8), 1 + 5.6 / 2.08), (0.3, 1 + 0.63 / 2.79), (0.0, 1), (-0.5, 1), (2.0, 6)],
)
def test_a_setting_is_worth_the_attempts_whose_outcome_agrees_as_well(value: float, attempts: float) -> None:
    found = in_attempts(agreed(value), [agreed(0.6), agreed(0.8)])
    assert (found.value, found.low, found.high) == pytest.approx((attempts, attempts, attempts))


@pytest.mark.parametrize("curve", [(0.5, 0.4), (0.0, 0.3), (0.3, 0.0), (0.0, -0.1), (0.4,)])
def test_the_outcome_of_all_attempts_is_worth_exactly_these(curve: Sequence[float]) -> None:
    """However its agreement grew, or did not."""
    found = in_attempts(agreed(curve[-1]), [agreed(value) for value in curve])
    assert found.value == len(curve) + 1


def test_rewards_that_know_the_better_way_are_worth_more_attempts() -> None:
    worth = calibrate(world(knows), PAPER, comparison=WHOLE).worth
    assert worth is not None
    assert (worth.tasks, worth.half, len(worth.outcome)) == (40, 3, 2)
    assert worth.more.low > 0
    assert worth.hidden.low > 1


def test_rewards_that_pay_for_the_worse_way_cost_attempts() -> None:
    worth = calibrate(world(errs), PAPER, comparison=WHOLE).worth
    assert worth is not None
    assert worth.more.high < 0
    assert worth.hidden.high == 1


def test_the_outcome_alone_is_worth_no_more_than_itself() -> None:
    """And without any verdict nothing: all attempts earn the same."""
    worth = calibrate(world(guesses), Outcome(Costs(**FREE)), comparison=WHOLE).worth
    assert worth is not None
    assert (worth.more.value, worth.more.low, worth.more.high) == pytest.approx((0, 0, 0))
    assert (worth.hidden.value, worth.hidden.low) == (1, 1)


def test_the_outcome_that_a_form_is_compared_with_has_the_costs_of_the_form() -> None:
    solved = attempt(0, 0, left=True, solved=1.0)
    look = solved.trajectory.steps[0]
    budget = testing.trajectory(look, look, stop=StopReason.call_budget)
    spent = testing.scored(budget, judgement(success=1.0, contribution=0.0), judgement(solved=0.0))
    for form, rewards in (
        (Paper(Paper.Config(step_cost=0.1, budget_cost=0.3)), ([-0.1, 0.9], [-0.1, -0.4])),
        (Grounded(Grounded.Config(step_cost=0.1)), ([-0.1, 0.9], [-0.1, -0.1])),
    ):
        bare = outcome_of(form).reward
        assert [bare.rewards(solved), bare.rewards(spent)] == [pytest.approx(own) for own in rewards]


@pytest.mark.parametrize(("score", "weighs"), [(knows, True), (errs, False), (guesses, False)])
def test_calibrated_rewards_cost_nothing_where_the_scores_are_wrong(score: Any, weighs: bool) -> None:
    found = calibrate(world(score), Calibrated(Calibrated.Config(**FREE)), comparison=WHOLE)
    weights = {each.name: each.weight for each in found.scores}
    assert (weights["contribution"] > 0.2) == weighs
    assert found.worth is not None
    assert (found.worth.more.low > 0) if weighs else (found.worth.more.value == pytest.approx(0))


def test_every_score_is_measured_by_group_too() -> None:
    """In group a the score knows the better way, in b it errs."""
    scored = [*world(knows, tasks=20), *_renamed(world(errs, tasks=20))]
    groups = {each.trajectory.task_id: each.trajectory.task_id[0] for each in scored}
    found = calibrate(scored, PAPER, groups=groups, comparison=WHOLE)
    by_group = {
        group: next(each.correlation for each in scores if each.name == "contribution")
        for group, scores in found.groups.items()
    }
    assert list(by_group) == ["b", "t"]
    assert by_group["b"] is not None
    assert by_group["t"] is not None
    assert by_group["b"].high < 0 < by_group["t"].low
    assert calibrate(scored, PAPER, comparison=WHOLE).groups == {}


def _renamed(scored: Sequence[ScoredTrajectory]) -> list[ScoredTrajectory]:
    renamed = []
    for each in scored:
        fields = {key: value for key, value in each.trajectory if key != "id"}
        made = type(each.trajectory).create(**fields | {"task_id": f"b{each.trajectory.task_id}"})
        renamed.append(each.model_copy(update={"trajectory": made}))
    return renamed


def test_one_sentence_says_what_they_are_worth() -> None:
    said = calibrate(world(knows), PAPER, name="paper", comparison=WHOLE).says
    assert said.startswith("With the step rewards of this data (paper), 3 attempts at a task foretell how others end ")
    assert " do by their verdicts alone, so the rewards are worth " in said
    assert said.endswith("attempts with verdicts, of which a single one foretells nothing")
    assert "cannot be told from 0" not in said
    nothing = calibrate(world(guesses), Outcome(Costs(**FREE)), name="outcome", comparison=WHOLE).says
    assert "the rewards are worth 0.0 [0.0, 0.0] attempts a task, which cannot be told from 0" in nothing
    assert nothing.endswith("with no verdict at all, they foretell nothing for certain")


def test_where_all_verdicts_at_a_task_are_equal_nothing_is_worth_anything() -> None:
    """Lengths and costs may differ: they are no outcome to foretell."""
    alike = [with_verdict(each, 1.0) for each in world(knows)]
    assert calibrate(alike, Outcome(Costs()), comparison=WHOLE).says.endswith("at no task do the verdicts differ")


def test_the_terminal_gets_a_line_a_score_and_the_sentence() -> None:
    found = calibrate(world(knows), PAPER, name="paper", comparison=WHOLE)
    lines = found.lines("r1")
    assert lines[0] == "calibration of r1"
    assert lines[1].startswith("  contribution  +0.")
    assert lines[-1] == f"  {found.says}."
    hostile = found.scores[0].model_copy(update={"name": "a\x1b[2J"})
    assert "\x1b" not in "".join(found.model_copy(update={"scores": (hostile,)}).lines("r1"))


@pytest.mark.parametrize(
    ("scored", "why"),
    [
        (world(knows, attempts=3), "no task has 4 attempts with a verdict"),
        ([attempt(0, n, n > 1, None) for n in range(4)], "no task has 4 attempts with a verdict"),
        ([attempt(0, n, True, 1.0) for n in range(4)], "verdicts differ"),
        (
            [
                testing.scored(testing.trajectory(step(call("find"), "{}"), finish("x"), attempt=n, solved=n % 2))
                for n in range(4)
            ],
            "no sampled tokens",
        ),
    ],
)
def test_what_cannot_be_measured_is_said(scored: list[ScoredTrajectory], why: str) -> None:
    found = calibrate(scored, PAPER)
    assert found.worth is None
    assert why in found.says


def test_a_task_with_an_attempt_without_a_verdict_is_left_out() -> None:
    scored = world(knows)
    open_task = [attempt(99, n, n > 1, None if n else 1.0) for n in range(6)]
    assert calibrate([*scored, *open_task], PAPER).worth == calibrate(scored, PAPER).worth


def test_the_same_attempts_give_the_same_calibration_in_any_order() -> None:
    scored = world(guesses)
    by_number = sorted(scored, key=lambda each: (each.trajectory.attempt, each.trajectory.task_id))
    assert calibrate(scored, PAPER) == calibrate(by_number, PAPER)


def test_a_hidden_verdict_hides_nothing_else() -> None:
    judged = attempt(0, 0, True, 1.0, 0.5)
    hidden = with_verdict(judged, None)
    assert hidden.solved is None
    assert hidden.judgements[:-1] == judged.judgements[:-1]
    assert hidden.trajectory == judged.trajectory
    empty = testing.scored(testing.trajectory(stop=StopReason.engine_error, error="lost"))
    assert with_verdict(empty, None) == empty


def test_a_calibration_is_a_record_that_can_be_kept() -> None:
    found = calibrate(world(knows), PAPER)
    assert Calibration.model_validate_json(found.model_dump_json()) == found

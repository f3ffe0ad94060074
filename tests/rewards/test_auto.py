"""Rewards by what is known of a task.

attempts at    verdicts      rewarded by
a              1, 0          the verdict (potential)
b              none, none    the calls
c              1, none       the calls, of both: they are compared with each other

alpha 0.25; find -> get -> Finish, both calls succeed, get contributes; price of a step without a verdict 0.015

step           0         1                            2
calls          -0.015    0.95 * 0.05 - 0.015          0.05 - 0.015
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from steptool import testing
from steptool.core.types import ScoredTrajectory, StopReason
from steptool.rewards.auto import Auto
from steptool.rewards.base import Chooses, HasClosedForm, Shapes, forms_of, needs_verdict, rewards_of
from steptool.rewards.grounded import Grounded
from steptool.rewards.paper import Paper
from steptool.rewards.potential import Potential
from steptool.testing import call, finish, judgement, step
from tests.rewards.conftest import annotated

Make = Callable[..., Any]
WEIGHTS = {"step_cost": 0.02, "budget_cost": 0.2, "gamma": 0.9}
AUTO = Auto(Auto.Config(alpha=0.25, **WEIGHTS))
BY_OUTCOME = Potential(Potential.Config(alpha=0.25, **WEIGHTS))
BY_CALLS = Grounded(Grounded.Config(gamma=0.9)).unjudged
FIND = step(call("find", name="Dune"), {"id": "bk417"})
GET = step(call("get", id="bk417"), {"price": 12.5})


def attempt(task: str, solved: float | None, *, number: int = 0, **options: Any) -> ScoredTrajectory:
    made = testing.trajectory(FIND, GET, finish("12.5"), of=task, attempt=number, solved=solved, **options)
    scores = judgement(success=1, contribution=0), judgement(success=1, contribution=1)
    return testing.scored(made, *scores, judgement(solved=solved))


def by_calls(scored: Sequence[ScoredTrajectory]) -> list[bool]:
    return [not needs_verdict(form) for form in forms_of(AUTO, scored)]


def test_a_task_with_verdicts_is_rewarded_by_them_and_one_without_by_its_calls() -> None:
    scored = [attempt("a", 1.0), attempt("b", None), attempt("a", 0.0, number=1), attempt("b", None, number=1)]
    assert by_calls(scored) == [False, True, False, True]
    assert rewards_of(AUTO, scored) == [
        BY_OUTCOME.rewards(scored[0]),
        pytest.approx([-0.015, 0.0325, 0.035]),
        BY_OUTCOME.rewards(scored[2]),
        pytest.approx([-0.015, 0.0325, 0.035]),
    ]


def test_attempts_that_are_compared_have_one_form_where_a_judge_abstained_on_some() -> None:
    scored = [attempt("c", 1.0), attempt("c", None, number=1)]
    first, second = rewards_of(AUTO, scored)
    assert first == second, "the verdict on one of them counts for neither"
    assert by_calls(scored) == [True, True]


def test_an_attempt_that_a_fault_ended_needs_no_verdict() -> None:
    broken = testing.scored(testing.trajectory(FIND, of="a", attempt=1, stop=StopReason.world_error))
    assert by_calls([attempt("a", 1.0), broken]) == [False, False]
    assert by_calls([broken]) == [True]


def test_where_every_attempt_has_a_verdict_auto_is_the_potential_form() -> None:
    scored = [attempt("a", 1.0), attempt("b", 0.0)]
    default = Auto(Auto.Config())
    assert rewards_of(default, scored) == [Potential(Potential.Config()).rewards(each) for each in scored]
    assert default.gamma == Potential.Config().gamma


def test_other_forms_reward_every_attempt_in_one_way() -> None:
    paper = Paper(Paper.Config())
    scored = [attempt("a", 1.0), attempt("b", None)]
    assert forms_of(paper, scored) == [paper, paper]
    assert rewards_of(paper, scored) == [paper.rewards(each) for each in scored]
    assert needs_verdict(paper)


def test_auto_says_what_it_is() -> None:
    assert isinstance(AUTO, Chooses)
    assert not needs_verdict(AUTO)
    assert all(isinstance(form, HasClosedForm) for form in (BY_OUTCOME, BY_CALLS))
    assert isinstance(AUTO, Shapes)
    assert AUTO.shapes
    assert not Auto(Auto.Config(alpha=0.0)).shapes
    assert AUTO.rewards(attempt("b", None)) == BY_CALLS.rewards(attempt("b", None))


def test_without_verdicts_auto_is_the_grounded_form(task: Make, trajectory: Make) -> None:
    calls = ("find", {"name": "Dune"}, {"id": "bk417"}), ("get", {"id": "bk417"}, {"price": 12.5})
    scored = annotated(trajectory(*calls, answer="12.5"), task("What does Dune cost?"), None)
    assert AUTO.rewards(scored) == BY_CALLS.rewards(scored)
    assert BY_CALLS.rewards(attempt("a", 1.0)) == BY_CALLS.rewards(attempt("a", None))

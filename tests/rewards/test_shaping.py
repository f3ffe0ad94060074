"""From judgements to rewards.

alpha 0.25, cost 0.02; find -> get (uses find) -> Finish, solved

step                    0       1       2
success                 1       1
contribution            1       1
paper                   0.48    0.48    0.98
phi (gamma 1)           0       0.25    0.75    0
potential               0.23    0.48    0.23
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steptool import testing
from steptool.core.types import ScoredTrajectory, StopReason, Trajectory
from steptool.rewards.base import HasClosedForm
from steptool.rewards.costs import Weights
from steptool.rewards.paper import Paper
from steptool.rewards.potential import Potential, potentials
from steptool.testing import judgement
from tests.rewards.conftest import annotated

Make = Callable[..., Any]
FIND = ("find", {"name": "Dune"}, {"id": "bk417"})
GET = ("get", {"id": "bk417"}, {"price": 12.5})
FORMS = {"potential": Potential, "paper": Paper}


def form(name: str, **weights: float) -> Potential | Paper:
    """alpha 0.25, step_cost 0.02 and budget_cost 0.2 where nothing else is given."""
    return FORMS[name](Weights(**{"alpha": 0.25, "step_cost": 0.02, "budget_cost": 0.2, **weights}))


def judged(trajectory: Trajectory, *scores: tuple[float, float], solved: float | None = 0.0) -> ScoredTrajectory:
    judgements = [judgement(success=success, contribution=contribution) for success, contribution in scores]
    return testing.scored(trajectory, *judgements, judgement(solved=solved))


def test_the_papers_form_without_costs_is_exactly_the_papers(trajectory: Make) -> None:
    """alpha (success + contribution) for t < T, solved for T; the published setting has alpha 1/2."""
    scored = judged(trajectory(FIND, GET, FIND, answer="x"), (1, 1), (1, 0), (0, 0), solved=1)
    paper = form("paper", alpha=0.5, step_cost=0.0, budget_cost=0.0, gamma=0.5)
    assert paper.rewards(scored) == [1.0, 0.5, 0.0, 1.0]


def test_the_default_pays_a_result_when_it_is_used_and_takes_it_back_at_the_end(trajectory: Make) -> None:
    scored = judged(trajectory(FIND, GET, answer="12.5"), (1, 1), (1, 1), solved=1)
    assert potentials(scored, alpha=0.25) == [0.0, 0.25, 0.75, 0.0]
    assert form("potential", gamma=1.0).rewards(scored) == pytest.approx([0.23, 0.48, 0.23])
    # gamma 0.9: 0.9*0.25-0.02, 0.9*0.75-0.25-0.02, 1-0.75-0.02
    assert form("potential", gamma=0.9).rewards(scored) == pytest.approx([0.205, 0.405, 0.23])


def test_a_failed_call_earns_no_potential(trajectory: Make) -> None:
    failed = ("get", {"id": "bk417"}, "!unavailable")
    scored = judged(trajectory(FIND, failed, answer="x"), (1, 0), (0, 0))
    assert potentials(scored, alpha=1.0) == [0.0, 1.0, 1.0, 0.0]


def test_answering_is_never_punished_for_having_used_results(trajectory: Make, task: Make) -> None:
    """The same two lookups, then an answer or giving up.

    Contributions differ (1, 1 and 0, 0), for they are known only in hindsight. The rewards must not, but
    for solved: a potential that held contributions would take 0.5 from whoever answers.
    """
    right, wrong, gave_up = (
        annotated(made, task("price?"), solved)
        for made, solved in (
            (trajectory(FIND, GET, answer="12.5"), 1.0),
            (trajectory(FIND, GET, answer="12.5"), 0.0),
            (trajectory(FIND, GET, stop=StopReason.gave_up), None),
        )
    )
    assert right.judgements[0].contribution != gave_up.judgements[0].contribution
    rewards = [form("potential").rewards(scored) for scored in (right, wrong, gave_up)]
    assert rewards[1] == pytest.approx(rewards[2])
    assert rewards[0] == pytest.approx([rewards[1][0], rewards[1][1], rewards[1][2] + 1])


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    ("stop", "cost"),
    [
        (StopReason.call_budget, 0.2),
        (StopReason.token_budget, 0.2),
        (StopReason.gave_up, 0.0),
        (StopReason.engine_error, 0.0),
    ],
)
def test_running_out_of_budget_costs_once_at_the_last_step(
    trajectory: Make, name: str, stop: StopReason, cost: float
) -> None:
    scored = judged(trajectory(("list", {}, "x"), stop=stop), *([(0.0, 0.0)] if stop is StopReason.gave_up else []))
    rewards = form(name, step_cost=0.0, gamma=1.0).rewards(scored)
    assert rewards[-1] == pytest.approx(-cost)
    assert rewards[:-1] == [0.0] * (len(rewards) - 1)


def test_a_truncation_pays_nothing_back(trajectory: Make) -> None:
    scored = judged(trajectory(FIND, GET, ("list", {}, "x"), stop=StopReason.world_error), (1, 0), (1, 0))
    assert potentials(scored, alpha=1.0) == [0.0, 1.0, 3.0, 3.0]


@pytest.mark.parametrize("name", FORMS)
def test_without_a_verdict_the_last_reward_is_what_a_wrong_answer_earns(trajectory: Make, name: str) -> None:
    answered = trajectory(FIND, GET, answer="12.5")
    unknown, wrong = (judged(answered, (1, 1), (1, 1), solved=solved) for solved in (None, 0.0))
    assert form(name).rewards(unknown) == form(name).rewards(wrong)


def test_several_calls_of_a_step_use_what_any_of_them_takes(trajectory: Make) -> None:
    """find, list -> get(zz1) and get(bk417) at the same time: both results are used."""
    listed = ("list", {}, {"id": "zz1"})
    one_by_one = trajectory(FIND, listed, ("get", {"id": "zz1"}, "a"), GET, answer="x")
    get_both = testing.step([testing.call("get", id="zz1"), testing.call("get", id="bk417")], ["a", {"price": 12.5}])
    at_once = testing.trajectory(*one_by_one.steps[:2], get_both, testing.finish("x"))
    assert potentials(judged(at_once, (1, 1), (1, 1), (1, 1)), alpha=1.0) == [0.0, 1.0, 2.0, 5.0, 0.0]


def test_no_steps_give_no_rewards(trajectory: Make, task: Make) -> None:
    scored = annotated(trajectory(stop=StopReason.engine_error), task("?"), None)
    assert form("potential", gamma=0.9).rewards(scored) == []
    assert form("potential", gamma=0.9).expected_return(scored) == 0


CALLS = st.lists(
    st.tuples(
        st.sampled_from([FIND, GET, ("list", {}, "bk417 7"), ("get", {"id": "7"}, "!no")]),
        st.tuples(st.floats(0, 1), st.floats(0, 1)),
    ),
    max_size=6,
)
ENDINGS = st.sampled_from(["answer", *StopReason])


def ended(trajectory: Make, rows: list[tuple[Any, Any]], ending: str, solved: float | None) -> ScoredTrajectory | None:
    calls, scores = [call for call, _ in rows], [score for _, score in rows]
    if ending == "answer" or ending == StopReason.finished:
        return judged(trajectory(*calls, answer="x"), *scores, solved=solved)
    if ending == StopReason.gave_up:
        return judged(trajectory(*calls, stop=StopReason.gave_up), *scores)
    return judged(trajectory(*calls, stop=StopReason(ending)), *scores[:-1]) if calls else None


@given(CALLS, ENDINGS, st.floats(0, 1), st.floats(0.01, 1), st.floats(0, 3))
def test_the_discounted_sum_of_shaping_is_minus_the_first_potential_which_is_zero(
    trajectory: Make, rows: list[Any], ending: str, solved: float, gamma: float, alpha: float
) -> None:
    scored = ended(trajectory, rows, ending, solved)
    if scored is None or not scored.trajectory.stop_reason.terminated:
        return
    shaped, plain = (
        form("potential", alpha=a, step_cost=0.1, budget_cost=0.3, gamma=gamma).rewards(scored) for a in (alpha, 0.0)
    )
    assert sum(gamma**t * (a - b) for t, (a, b) in enumerate(zip(shaped, plain, strict=True))) == pytest.approx(
        0, abs=1e-9
    )


@given(CALLS, ENDINGS, st.none() | st.floats(0, 1), st.floats(0, 1), st.sampled_from(list(FORMS)))
def test_rewards_add_up_to_their_closed_form(
    trajectory: Make, rows: list[Any], ending: str, solved: float | None, gamma: float, name: str
) -> None:
    scored = ended(trajectory, rows, ending, solved)
    if scored is None:
        return
    chosen = form(name, alpha=0.7, step_cost=0.1, budget_cost=0.3, gamma=gamma)
    assert isinstance(chosen, HasClosedForm)
    total = sum(gamma**t * reward for t, reward in enumerate(chosen.rewards(scored)))
    assert total == pytest.approx(chosen.expected_return(scored), abs=1e-9)


@given(CALLS, st.data())
def test_the_potential_is_a_function_of_what_has_happened(
    trajectory: Make, rows: list[Any], data: st.DataObject
) -> None:
    """Cut after any step and ended otherwise, the potentials up to there are the same: no look into the future."""
    scored = ended(trajectory, rows, "answer", 1.0)
    assert scored is not None
    cut = data.draw(st.integers(0, len(rows)))
    shorter = ended(trajectory, rows[:cut], StopReason.gave_up, 0.0)
    assert shorter is not None
    assert potentials(scored, 0.5)[: cut + 1] == potentials(shorter, 0.5)[: cut + 1]

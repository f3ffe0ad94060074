"""The form calibrated: weights from outcomes, on worlds where the truth is known.

attempts at a task     contribution   solved       within the task
1                      1              1            (+.5, +.5)
2                      0              0            (-.5, -.5)
                                                   weight Σxy / Σxx = 1: one more contribution is one more solved task

one contribution more goes with .3 solved tasks more: weight .3; with strength 2, a contribution is paid .6
find -> get -> Finish, contribution 0, 1; solved; cost .02; strength 1: -.02, .3 - .02, 1 - .02
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from steptool import testing
from steptool.core.errors import DataError
from steptool.core.types import ScoredTrajectory, StopReason
from steptool.rewards.base import HasClosedForm, fitted, forms_of, needs_verdict, rewards_of
from steptool.rewards.calibrated import ByEvidence, Calibrated, Weighed
from steptool.rewards.evidence import ENOUGH, Evidence, Tally, evidence_of, moments, tally, weights
from steptool.testing import call, finish, judgement, step

FORM = Calibrated(Calibrated.Config(step_cost=0.02, gamma=0.9, strength=1.0))
FIND = step(call("find", name="Dune"), {"id": "bk417"})
GET = step(call("get", id="bk417"), {"price": 12.5})


def attempt(
    task: str, number: int, solved: float | None, *, stop: StopReason | None = None, steps: int = 1, **scores: float
) -> ScoredTrajectory:
    """One call, or several that differ, of which the first has the scores; then an answer."""
    calls = [step(call("find", name=str(n)), {"id": n}) for n in range(steps)]
    made = testing.trajectory(*calls, finish("x"), of=task, attempt=number, solved=solved, stop=stop)
    first = judgement(**{"success": 0.0, "contribution": 0.0} | scores)
    others = [judgement(success=0.0, contribution=0.0)] * (steps - 1)
    return testing.scored(made, first, *others, judgement(solved=solved))


def data(
    tasks: int, attempts: int, solved: Callable[[int, int], float], **scores: Callable[[int, int], float]
) -> list[ScoredTrajectory]:
    """Verdicts and scores as functions of task and attempt."""
    return [
        attempt(f"t{t}", n, solved(t, n), **{name: score(t, n) for name, score in scores.items()})
        for t in range(tasks)
        for n in range(attempts)
    ]


def first_is_better(task: int, number: int) -> float:
    return float(number == 0)


def weights_of(scored: Sequence[ScoredTrajectory]) -> dict[str, float]:
    form = FORM.fitted(scored)
    return form.weights


def evidence(scored: Sequence[ScoredTrajectory], name: str) -> Evidence:
    found = evidence_of(moments(each for each in map(tally, scored) if each is not None))
    return next(each for each in found if each.name == name)


# What the weights are


def test_a_perfect_score_is_worth_a_solved_task() -> None:
    scored = data(12, 2, first_is_better, contribution=first_is_better)
    assert weights_of(scored) == {"contribution": pytest.approx(1.0)}
    found = evidence(scored, "contribution")
    assert (found.tasks, found.weight) == (12, pytest.approx(1.0))
    assert found.correlation is not None
    assert found.correlation.value == pytest.approx(1.0)


def test_a_score_gets_the_share_of_a_solved_task_that_goes_with_it() -> None:
    """Of ten tasks, three are solved by the attempt with the score, the others by none: 3 · .5 / (10 · .5)."""
    scored = data(40, 2, lambda t, n: float(n == 0 and t % 10 < 3), contribution=first_is_better)
    assert weights_of(scored) == {"contribution": pytest.approx(0.3)}


def test_a_harmful_score_gets_nothing() -> None:
    scored = data(12, 2, first_is_better, contribution=lambda t, n: float(n == 1))
    assert weights_of(scored) == {}
    found = evidence(scored, "contribution").correlation
    assert found is not None
    assert found.value == pytest.approx(-1.0)


def test_two_scores_that_say_the_same_are_not_paid_twice() -> None:
    scored = data(12, 2, first_is_better, contribution=first_is_better, success=first_is_better)
    assert sum(weights_of(scored).values()) == pytest.approx(1.0)


def test_an_easy_task_makes_no_evidence() -> None:
    """All is solved and much contributes in every second task: across tasks they go together, within none."""
    easy = data(20, 2, lambda t, n: float(t % 2), contribution=lambda t, n: float(t % 2))
    assert weights_of(easy) == {}


def test_noise_gets_nothing_in_at_least_95_of_100_draws_and_the_true_score_its_due() -> None:
    """60 tasks of 4 attempts; the true score raises the chance to solve from .2 to .7, the others are drawn."""
    rng, noisy, due = np.random.default_rng(3), 0, []
    for _ in range(200):
        true, noise, chance = rng.random((60, 4)) < 0.5, rng.random((60, 4)), rng.random((60, 4))
        solved = chance < np.where(true, 0.7, 0.2)
        found = weights(
            moments(
                Tally(f"t{t}", str(n), float(solved[t, n]), {"true": float(true[t, n]), "noise": float(noise[t, n])})
                for t, n in np.ndindex(60, 4)
            )
        )
        noisy += "noise" in found
        due.append(found["true"])
    assert noisy <= 10
    assert np.mean(due) == pytest.approx(0.5, abs=0.02)


def test_fewer_tasks_than_an_interval_needs_are_no_evidence() -> None:
    scored = data(ENOUGH - 1, 2, first_is_better, contribution=first_is_better)
    assert weights_of(scored) == {}
    assert evidence(scored, "contribution").correlation is None


def test_a_step_costs_what_it_loses_by_the_evidence() -> None:
    """The longer attempt, by two steps, is never solved: one step costs half a task."""
    scored = [attempt(f"t{t}", n, float(n == 0), steps=1 + 2 * n) for t in range(12) for n in range(2)]
    assert weights_of(scored) == {"length": pytest.approx(0.5)}


def test_attempts_in_another_order_give_the_same_weights_to_the_last_bit() -> None:
    rng = np.random.default_rng(1)
    solved, score = rng.random((30, 4)) < 0.5, rng.random((30, 4))
    scored = data(30, 4, lambda t, n: float(solved[t, n]), contribution=lambda t, n: (solved[t, n] + score[t, n]) / 2)
    shuffled = [scored[int(index)] for index in rng.permutation(len(scored))]
    assert weights_of(scored) == weights_of(shuffled) != {}


def test_what_a_fault_ended_tells_nothing() -> None:
    scored = data(12, 2, first_is_better, contribution=first_is_better)
    broken = [attempt(f"t{t}", 2, 0.0, stop=StopReason.engine_error, contribution=1.0, success=1.0) for t in range(12)]
    assert weights_of([*scored, *broken]) == weights_of(scored)


# What is paid


def three_steps(*, solved: float | None = 1.0, twice: bool = False) -> ScoredTrajectory:
    calls = (FIND, GET, GET) if twice else (FIND, GET)
    scores = [judgement(success=1, contribution=0), *[judgement(success=1, contribution=1)] * (len(calls) - 1)]
    made = testing.trajectory(*calls, finish("12.5"), solved=solved)
    return testing.scored(made, *scores, judgement(solved=solved))


def weighed(*, verdict: bool = True, strength: float = 1.0, **weights: float) -> Weighed:
    config = Calibrated.Config(step_cost=0.02, gamma=0.9, strength=strength)
    return Weighed(config, weights, needs_verdict=verdict)


def test_scores_are_paid_by_their_weights() -> None:
    assert weighed(contribution=0.3).rewards(three_steps()) == pytest.approx([-0.02, 0.28, 0.98])


def test_strength_multiplies_what_is_paid() -> None:
    assert weighed(contribution=0.3, strength=2.0).rewards(three_steps()) == pytest.approx([-0.02, 0.58, 0.98])


def test_a_repeated_call_is_not_paid() -> None:
    found = weighed(contribution=0.3, success=0.1).rewards(three_steps(twice=True))
    assert found == pytest.approx([0.08, 0.38, -0.02, 0.98])


def test_the_scores_of_an_attempt_earn_no_more_than_a_solved_task() -> None:
    found = weighed(contribution=0.9, success=0.4).rewards(three_steps())
    assert found == pytest.approx([0.4 - 0.02, 0.6 - 0.02, 0.98])


def test_the_length_costs_every_step() -> None:
    assert weighed(length=0.1).rewards(three_steps()) == pytest.approx([-0.12, -0.12, 0.88])


@pytest.mark.parametrize("verdict", [True, False])
def test_the_return_has_a_closed_form(verdict: bool) -> None:
    form, scored = weighed(verdict=verdict, contribution=0.3, success=0.2, length=0.05), three_steps(twice=True)
    assert isinstance(form, HasClosedForm)
    plain = sum(0.9**t * reward for t, reward in enumerate(form.rewards(scored)))
    assert form.expected_return(scored) == pytest.approx(plain)


# Verdicts that are missing


def with_unjudged(scored: Sequence[ScoredTrajectory]) -> list[ScoredTrajectory]:
    unjudged = [attempt("open", 0, None, contribution=1.0), attempt("open", 1, 1.0)]
    return [*scored, *unjudged]


def test_a_task_of_which_an_attempt_has_no_verdict_is_rewarded_without() -> None:
    scored = with_unjudged(data(12, 2, first_is_better, contribution=first_is_better))
    forms = forms_of(FORM, scored)
    assert [needs_verdict(form) for form in forms] == [True] * 24 + [False] * 2
    assert [sum(own) for own in rewards_of(FORM, scored)[-2:]] == pytest.approx([0.96, -0.04])


def test_data_without_verdicts_and_without_evidence_are_refused() -> None:
    with pytest.raises(DataError, match=r"2 of 2 attempts have no verdict.*0 tasks"):
        FORM.fitted([attempt("a", 0, None), attempt("a", 1, None)])


def test_data_with_verdicts_and_without_evidence_are_rewarded_by_the_verdict() -> None:
    scored = data(3, 2, first_is_better)
    form = fitted(FORM, scored)
    assert isinstance(form, ByEvidence)
    assert [sum(own) for own in rewards_of(form, scored)[:2]] == pytest.approx([0.96, -0.04])


def test_one_attempt_is_rewarded_by_its_verdict() -> None:
    assert FORM.rewards(three_steps()) == pytest.approx([-0.02, -0.02, 0.98])
    with pytest.raises(DataError, match="no verdict"):
        FORM.rewards(three_steps(solved=None))

"""What attacks earn, next to the honest attempt. cost 0, alpha 1, paper form: r_t = success + contribution.

honest    find  Finish right        rewards  1  1        gamma 0.5: return 1.5
repeats   find  find  Finish wrong  rewards  1  1  0     return 1.5, from the second step on 1 against 1
"""

from __future__ import annotations

import pytest

from steptool import testing
from steptool.checks.audit.attacks import HONEST
from steptool.checks.audit.measure import difference, rows
from steptool.checks.audit.play import Made
from steptool.core.types import ScoredTrajectory, Step
from steptool.rewards.paper import Paper
from steptool.testing import call, finish, judgement, step

FORM = Paper(Paper.Config(alpha=1.0, step_cost=0.0, budget_cost=0.0, gamma=0.5))
FIND = step(call("find", name="Dune"), {"id": "bk417"})


def attempt(*steps: Step, solved: float) -> ScoredTrajectory:
    scores = [judgement(success=1, contribution=0) for _ in steps[:-1]]
    return testing.scored(testing.trajectory(*steps, solved=solved), *scores, judgement(solved=solved))


HONESTLY = attempt(FIND, finish("9.99"), solved=1.0)
ONCE_MORE = attempt(FIND, FIND, finish("9.98"), solved=0.0)
SEVEN = attempt(*[FIND] * 7, finish("9.99"), solved=1.0)


def test_returns_are_compared_from_the_start_and_advantages_from_where_attempts_part() -> None:
    found = difference(ONCE_MORE, [1, 1, 0], HONESTLY, [1, 1], gamma=0.5, lambda_step=0.5)
    assert found == pytest.approx({"return": 0.0, "lambda": 0.0, "advantage": 0.0})
    found = difference(SEVEN, [1] * 7 + [1], HONESTLY, [1, 0], gamma=1.0, lambda_step=0.5)
    assert found["return"] == 7.0
    assert found["lambda"] == pytest.approx(sum(0.5**t for t in range(1, 8)))
    assert found["advantage"] == pytest.approx(sum(0.5**t for t in range(7)))


def test_attempts_that_do_the_same_to_the_end_part_nowhere() -> None:
    assert difference(HONESTLY, [1, 1], HONESTLY, [1, 1], gamma=1.0, lambda_step=1.0)["advantage"] == 0.0


def test_a_row_counts_the_tasks_that_give_the_attack_a_hold() -> None:
    honest = Made(HONEST, HONEST, HONESTLY)
    (row,) = rows([[honest, Made("repeats", HONEST, SEVEN)], [honest]], FORM, lambda_step=1.0)
    assert (row.name, row.against, row.tasks) == ("repeats", HONEST, 1)
    assert row.gains == {"return": 1.0, "lambda": 1.0, "advantage": 1.0} and row.most == 1.0


def test_what_earns_as_much_does_not_earn_more() -> None:
    (row,) = rows([[Made(HONEST, HONEST, HONESTLY), Made("the same", HONEST, HONESTLY)]], FORM, lambda_step=0.9)
    assert row.most == 0.0

"""What a step does for the first time: share of its calls, times their success."""

from __future__ import annotations

from typing import Any

import pytest

from steptool import testing
from steptool.rewards.repeats import first_shares
from steptool.testing import call, finish, judgement, step

FIND = step(call("find", name="Dune"), {"id": "bk417"})
AGAIN = call("find", name="Dune")
FAILED = step(AGAIN, error="rate_limit")


@pytest.mark.parametrize(
    ("steps", "paid"),
    [
        ([FIND, FIND, FIND], [1, 0, 0]),  # a good call, over and over
        ([FAILED, FIND, FIND], [0, 1, 0]),  # to try again after a failure is right
        ([FIND, step(call("find", name="Emma"), {"id": "bk1"})], [1, 1]),  # other arguments
        ([step([AGAIN, AGAIN], ["x", "x"]), FIND], [0.5, 0]),  # twice at the same time
        ([FIND, step([AGAIN, call("get", id="7")], ["x", "y"])], [1, 0.5]),
        ([step(call("f", a=1, b=2), "x"), step(call("f", b=2, a=1), "x")], [1, 0]),  # the order says nothing
    ],
)
def test_the_success_of_a_call_that_succeeded_before_counts_nothing(steps: list[Any], paid: list[float]) -> None:
    made = testing.trajectory(*steps, finish("x"))
    scores = [
        judgement(success=float(all(seen.error is None for seen in each.observations)), contribution=0)
        for each in steps
    ]
    shares = first_shares(testing.scored(made, *scores, judgement(solved=None)))[:-1]
    earned = [share * score.scores["success"] for share, score in zip(shares, scores, strict=True)]
    assert earned == paid

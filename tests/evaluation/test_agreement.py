"""How far two judges agree, by hand.

          other: 1   0
one: 1          20   5        accuracy (20 + 15) / 50 = 0.7
     0          10  15        chance 25/50·30/50 + 25/50·20/50 = 0.5        κ = (0.7 − 0.5) / 0.5 = 0.4
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from steptool.evaluation.agreement import ALL, Agreement, Pair, agreements, auc_of, kappa_of


def pairs(both: int, one: int, other: int, neither: int, *, group: str = "g", tasks: int = 1000) -> list[Pair]:
    cells = [(1.0, 1.0)] * both + [(1.0, 0.0)] * one + [(0.0, 1.0)] * other + [(0.0, 0.0)] * neither
    return [Pair(task=f"{group}{n % tasks}", group=group, one=a, other=b) for n, (a, b) in enumerate(cells)]


def measured(found: list[Pair], **more: Any) -> dict[str, Agreement]:
    return agreements(found, **{"threshold": 0.5, "resamples": 500, "confidence": 0.95, "seed": 0, **more})


def test_accuracy_and_kappa_are_those_of_the_table() -> None:
    found = measured(pairs(20, 5, 10, 15))[ALL]
    assert (found.both, found.one_only, found.other_only, found.neither) == (20, 5, 10, 15)
    assert found.accuracy.value == pytest.approx(0.7)
    assert found.kappa.value == pytest.approx(0.4)
    assert found.kappa.low is not None and found.kappa.high is not None
    assert found.kappa.low < 0.4 < found.kappa.high


def test_attempts_at_one_task_are_resampled_together() -> None:
    """The same 50 pairs at 5 tasks say less than at 50."""

    def width(tasks: int) -> float:
        kappa = measured(sorted(pairs(20, 5, 10, 15, tasks=tasks), key=lambda each: each.one or 0))[ALL].kappa
        return (kappa.high or 0) - (kappa.low or 0)

    grouped = [Pair(task=str(n // 10), group="g", one=a.one, other=a.other) for n, a in enumerate(pairs(20, 5, 10, 15))]
    kappa = measured(grouped)[ALL].kappa
    assert (kappa.high or 0) - (kappa.low or 0) > width(1000)


def test_what_one_of_them_cannot_tell_is_counted_apart() -> None:
    unknown = [Pair(task="u", group="g", one=None, other=1.0), Pair(task="u", group="g", one=0.0, other=None)]
    found = measured([*pairs(2, 0, 0, 2), *unknown])[ALL]
    assert (found.attempts, found.unknown) == (4, 2)
    assert found.kappa.value == 1.0


def test_each_group_has_its_own_row_and_all_comes_last() -> None:
    found = measured([*pairs(1, 0, 0, 1, group="b"), *pairs(0, 1, 1, 0, group="a")])
    assert list(found) == ["a", "b", ALL]
    assert [found[name].kappa.value for name in found] == [-1.0, 1.0, 0.0]
    assert list(measured(pairs(1, 0, 0, 1))) == [ALL]


def test_where_both_always_say_the_same_there_is_no_kappa() -> None:
    found = measured(pairs(5, 0, 0, 0))[ALL]
    assert found.accuracy.value == 1.0
    assert found.kappa.value is None
    assert measured([])[ALL].accuracy.value is None


def test_the_threshold_says_what_counts_as_one() -> None:
    half = [Pair(task="t", group="g", one=0.5, other=1.0), Pair(task="v", group="g", one=0.0, other=0.0)]
    assert measured(half)[ALL].other_only == 1
    assert measured(half, threshold=0.4)[ALL].both == 1


def test_independent_judges_have_a_kappa_near_zero() -> None:
    table = np.array([[25.0, 25.0, 25.0, 25.0], [10.0, 0.0, 0.0, 10.0]])
    assert kappa_of(table).tolist() == [0.0, 1.0]


def test_auc_counts_ties_half() -> None:
    # solved .9 and .5 against others .5 and .1: 1 + 1 + .5 + 1 of 4
    assert auc_of(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])) == 3.5 / 4
    assert auc_of(np.array([0.9]), np.array([True])) is None

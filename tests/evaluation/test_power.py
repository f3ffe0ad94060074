"""What difference a number of tasks can show, against the same comparison simulated.

6 tasks that all differ   all six won: p = 2 · 2⁻⁶ = 0.031, the least that convinces
5 tasks                   2 · 2⁻⁵ = 0.063: nothing convinces
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from steptool.evaluation.power import power_of, smallest_difference, tasks_needed


def test_six_tasks_show_that_all_are_won_and_five_show_nothing() -> None:
    assert power_of(6, 1.0) == pytest.approx(1.0)
    assert power_of(6, 0.9) == pytest.approx(0.9**6)
    assert power_of(5, 1.0) == 0
    assert smallest_difference(6) == pytest.approx(0.8 ** (1 / 6), abs=1e-3)
    assert smallest_difference(5) is None
    assert smallest_difference(0) is None


@pytest.mark.parametrize(("tasks", "discordance"), [(12, 0.3), (40, 0.3), (150, 0.3), (150, 0.1), (400, 0.5)])
def test_the_power_is_that_of_simulated_comparisons(tasks: int, discordance: float) -> None:
    difference = smallest_difference(tasks, discordance=discordance)
    assert difference is not None
    differing = max(discordance, difference)
    rng, runs, found = np.random.default_rng(5), 4_000, 0
    verdicts: dict[tuple[int, int], bool] = {}
    for _ in range(runs):
        drawn = rng.choice(3, size=tasks, p=[(differing + difference) / 2, (differing - difference) / 2, 1 - differing])
        won, lost = int(np.sum(drawn == 0)), int(np.sum(drawn == 1))
        if won > lost:
            if (won, lost) not in verdicts:
                verdicts[won, lost] = binomtest(won, won + lost, 0.5).pvalue < 0.05
            found += verdicts[won, lost]
    assert found / runs == pytest.approx(0.8, abs=0.025)


def test_a_false_difference_is_rarely_found() -> None:
    assert power_of(150, 1e-9) <= 0.025


def test_more_tasks_show_smaller_differences() -> None:
    shown = [smallest_difference(tasks) for tasks in (12, 40, 150, 1000, 10_000)]
    assert shown == sorted(shown, key=lambda each: -(each or 0))
    assert [round(100 * (each or 0)) for each in shown] == [58, 24, 13, 5, 2]


@pytest.mark.parametrize("difference", [0.5, 0.1, 0.05])
def test_as_many_tasks_as_are_needed_show_it(difference: float) -> None:
    needed = tasks_needed(difference)
    assert smallest_difference(needed) == pytest.approx(difference, rel=0.06)
    assert power_of(needed, difference) >= 0.8

"""benchmarks/credit.py: half of the attempts at a task against the other half.

six attempts    token 10: solved solved solved      token 12: unsolved unsolved unsolved
a half of 3     2 of the one kind, 1 of the other (3 and 0 part nowhere)
                A = n / (n - 1) (mean of the way - mean of all): (.5, -1) against (1, -.5)
                correlation (.5 + .5) / 1.25 = .8
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.credit import correlation, episodes, main, moments, worth
from steptool.errors import DataError
from steptool.params import Params, RewardParams, load_params
from steptool.storage import write_jsonl
from steptool.types import ScoredTrajectory

MakeScored = Callable[..., ScoredTrajectory]
BARE = RewardParams(alpha=0, step_cost=0, budget_cost=0)


@pytest.fixture
def params() -> Params:
    return load_params().model_copy(update={"reward": BARE})


@pytest.fixture
def six(make_scored: MakeScored) -> list[ScoredTrajectory]:
    ways = [(10, 1), (10, 1), (10, 1), (12, 0), (12, 0), (12, 0)]
    return [make_scored([([1], [way])], attempt=n, solved=solved) for n, (way, solved) in enumerate(ways)]


def test_ways_that_decide_the_outcome_agree_between_halves(six: list[ScoredTrajectory], params: Params) -> None:
    (attempts,) = episodes(six, params).values()
    assert correlation(moments(attempts, attempts, 1.0, 1.0, 0)) == pytest.approx(0.8)


def test_rewards_that_foretell_the_opposite_are_negative(six: list[ScoredTrajectory], params: Params) -> None:
    (outcome,) = episodes(six, params).values()
    turned = [replace(item, rewards=tuple(-r for r in item.rewards)) for item in outcome]
    assert correlation(moments(turned, outcome, 1.0, 1.0, 0)) == pytest.approx(-0.8)


def test_a_way_that_a_setting_holds_equal_counts_against_it(params: Params, make_scored: MakeScored) -> None:
    """Two tasks of two ways each; the setting is blind to the second: y = (1, -1, 1, -1), x = (1, -1, 0, 0)."""
    blind = []
    outcome = []
    for task in ("a", "b"):
        made = [make_scored([([1], [10 + n % 2])], task=task, attempt=n, solved=n % 2) for n in range(4)]
        outcome.append(episodes(made, params)[task])
        blind.append([replace(item, rewards=(0.0,)) for item in outcome[-1]] if task == "b" else outcome[-1])
    sums = [moments(own, y, 1.0, 1.0, 0) for own, y in zip(blind, outcome, strict=True)]
    assert correlation(sums[0]) == pytest.approx(1)
    assert correlation(sums[0] + sums[1]) == pytest.approx(np.sqrt(0.5))


def test_where_nothing_varies_there_is_no_correlation() -> None:
    assert correlation(np.zeros(3)) == 0


def test_too_few_attempts_are_refused(six: list[ScoredTrajectory], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "scored.jsonl.gz", six[:3])
    with pytest.raises(DataError, match="no task has four attempts"):
        main(tmp_path, ["reward.alpha=0"])


def test_worth_is_how_many_times_the_attempts_would_say_as_much() -> None:
    """Reliability .5 alone; a setting's .75 gives the correlation sqrt(.5 * .75), and .75 = 3 * .5 / (1 + 2 * .5).

    One of .25 is worth a third: .25 = (1/3) .5 / (1 - (2/3) .5).
    """
    found = worth(np.sqrt([0.5 * 0.5, 0.5 * 0.75, 0.5 * 0.25]), np.full(3, 0.5))
    assert found.tolist() == pytest.approx([1, 3, 1 / 3])
    assert worth(np.array([1.0, -0.5]), np.array([0.9, 0.5])).tolist() == [np.inf, pytest.approx(-1 / 3)]


def test_each_setting_gets_a_line_with_the_difference_to_the_outcome_alone(
    six: list[ScoredTrajectory], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "scored.jsonl.gz", six)
    main(tmp_path, ["reward.step_cost=0.5"])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "6 trajectories of 1 tasks"
    assert said[3].startswith("the outcome alone")
    assert said[3].split()[3] == "0.800"
    assert said[4].split()[0] == "reward.step_cost=0.5"
    assert said[4].split()[4] == "+0.000"
    assert said[4].split()[7:] == ["1.00", "[1.000,", "1.000]"]

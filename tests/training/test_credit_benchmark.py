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

from benchmarks.credit import correlation, episodes, main, moments
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


def test_where_nothing_varies_there_is_no_correlation() -> None:
    assert correlation(np.zeros(3)) == 0


def test_too_few_attempts_are_refused(six: list[ScoredTrajectory], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "scored.jsonl.gz", six[:3])
    with pytest.raises(DataError, match="no task has four attempts"):
        main(tmp_path, ["reward.alpha=0"])


def test_each_setting_gets_a_line_with_the_difference_to_the_first(
    six: list[ScoredTrajectory], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "scored.jsonl.gz", six)
    main(tmp_path, ["reward.alpha=0", "reward.alpha=0.5"])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "6 trajectories of 1 tasks"
    assert said[1].split()[:2] == ["reward.alpha=0", "0.800"]
    assert said[2].split()[-3] == "+0.000"

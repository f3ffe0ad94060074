"""A form that must see the data before it rewards any of it.

solved attempts of 3    2    gives every last step 2/3
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from steptool import testing
from steptool.core.types import ScoredTrajectory
from steptool.rewards.base import Fits, RewardForm, fitted, rewards_of
from steptool.rewards.paper import Paper
from steptool.testing import finish, judgement

PAPER = Paper(Paper.Config())


class Share:
    """Rewards an attempt with the share that was solved of the data it was fitted to."""

    gamma = 1.0
    needs_verdict = True

    def __init__(self, share: float) -> None:
        self.share = share

    def rewards(self, scored: ScoredTrajectory) -> Sequence[float]:
        return [self.share] * len(scored.judgements)


class Fitting(Share):
    def fitted(self, scored: Sequence[ScoredTrajectory]) -> RewardForm:
        return Share(sum(item.solved or 0.0 for item in scored) / len(scored))


def attempts(*solved: float) -> list[ScoredTrajectory]:
    made = [testing.trajectory(finish("x"), attempt=number, solved=each) for number, each in enumerate(solved)]
    return [testing.scored(item, judgement(solved=each)) for item, each in zip(made, solved, strict=True)]


def test_a_form_is_fitted_to_all_attempts_before_it_rewards_one() -> None:
    assert rewards_of(Fitting(0.0), attempts(1, 1, 0)) == [[pytest.approx(2 / 3)]] * 3


def test_a_form_that_was_fitted_is_not_fitted_again_to_a_part_of_the_data() -> None:
    form = fitted(Fitting(0.0), attempts(1, 1, 0))
    assert not isinstance(form, Fits)
    assert rewards_of(form, attempts(0)) == [[pytest.approx(2 / 3)]]


def test_a_form_that_needs_no_data_stays_as_it_is() -> None:
    assert fitted(PAPER, attempts(1, 0)) is PAPER

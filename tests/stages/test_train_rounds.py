"""Each round learns at a share of the rate of the one before it."""

from __future__ import annotations

import pytest

from steptool.config.settings import TrainParams
from steptool.stages.train import of_round


@pytest.mark.parametrize(
    ("round_decay", "rates"),
    [
        (1.0, [0.01, 0.01, 0.01]),
        (0.5, [0.01, 0.005, 0.0025]),
    ],
)
def test_the_learning_rate_falls_from_round_to_round(round_decay: float, rates: list[float]) -> None:
    train = TrainParams(learning_rate=0.01, round_decay=round_decay)
    assert [of_round(train, index).learning_rate for index in range(3)] == pytest.approx(rates)
    assert of_round(train, 2).model_copy(update={"learning_rate": 0.01}) == train  # nothing else differs

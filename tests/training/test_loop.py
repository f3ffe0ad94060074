"""What the optimisation loop does around an objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from steptool.training.batch import episode, pack
from steptool.training.loop import LowerCache, Run, optimise
from steptool.training.model import PolicyWithValue
from steptool.training.rft import LikelihoodObjective
from steptool.types import ScoredTrajectory


class Recorder(torch.optim.SGD):
    """Notes the learning rate of every step."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.rates: list[float] = []

    def step(self, closure: Any = None) -> None:
        self.rates.append(self.param_groups[0]["lr"])
        super().step(closure)


def test_learning_rate_falls_linearly_over_the_optimiser_steps(
    make_policy: Callable[..., PolicyWithValue], group: list[ScoredTrajectory]
) -> None:
    """2 epochs of 2 minibatches are 4 steps: 1, 3/4, 1/2 and 1/4 of the rate."""
    policy = make_policy()
    made = [episode(item, [0.0] * len(item.judgements)) for item in group]
    batch = pack([item for item in made if item is not None], 16)
    optimizer = Recorder(policy.policy_parameters().values(), lr=0.4)
    run = Run(2, 2, 1.0, seed=1, fingerprint="", on_metrics=lambda step, metrics: None, checkpoint_dir=None)
    optimise(policy, batch, LikelihoodObjective(batch.weights(by_step=False)), optimizer, run, LowerCache(policy))
    assert optimizer.rates == pytest.approx([0.4, 0.3, 0.2, 0.1])

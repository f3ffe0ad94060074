"""What the optimisation loop does around an objective."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from steptool.core.types import ScoredTrajectory
from steptool.methods.clipped import diverged
from steptool.methods.rft import LikelihoodObjective, Rft
from steptool.methods.sft import DIVERGED, Sft
from steptool.methods.step_ppo import StepPpo
from steptool.training.batch import pack
from steptool.training.episode import episode
from steptool.training.model import PolicyWithValue
from steptool.training.trainer import LowerCache, Run, optimise


@pytest.mark.parametrize(
    ("advice", "key", "method"),
    [(DIVERGED, "sft", Sft), (LikelihoodObjective.diverged, "rft", Rft), (diverged(StepPpo.name), "step_ppo", StepPpo)],
)
def test_advice_about_a_loss_that_is_not_finite_names_a_setting_of_that_method(
    advice: str, key: str, method: Any
) -> None:
    named = re.findall(r"\bmethods\.(\w+)\.(\w+)", advice)
    assert named
    for owner, setting in named:
        assert owner == key
        assert setting in method.Config.model_fields


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

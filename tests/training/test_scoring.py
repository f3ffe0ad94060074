"""Two states of a vocabulary of three, and three tokens that were sampled in them.

state   p                  token    log p
0       1/2 1/4 1/4        0        -ln 2
0                          1        -ln 4
1       1/3 1/3 1/3        2        -ln 3
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from steptool.training.scoring import scores_of

STATE, TARGETS = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 2])
P = torch.tensor([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.double)
Q = torch.tensor([[0.25, 0.5, 0.25], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.double)


def test_log_probabilities_entropy_and_divergence_of_each_state() -> None:
    """KL(p, q) of the first state: 1/2 ln 2 - 1/4 ln 2 = 1/4 ln 2."""
    logprobs, entropy, divergence = scores_of(P.log() + 7, Q.log(), TARGETS, STATE)
    assert logprobs.tolist() == pytest.approx([-math.log(2), -math.log(4), -math.log(3)])
    assert entropy.tolist() == pytest.approx([1.5 * math.log(2), math.log(3)])
    assert divergence is not None
    assert divergence.tolist() == pytest.approx([math.log(2) / 4, 0])
    assert scores_of(P.log(), None, TARGETS, STATE)[2] is None


@pytest.mark.parametrize("compared", [True, False])
def test_gradients_are_those_of_finite_differences(compared: bool) -> None:
    logits = torch.randn(2, 5, dtype=torch.double, generator=torch.Generator().manual_seed(0)).requires_grad_()
    theirs = torch.randn(2, 5, dtype=torch.double, generator=torch.Generator().manual_seed(1)).log_softmax(-1)

    def found(given: Tensor) -> Tensor:
        logprobs, _, divergence = scores_of(given, theirs if compared else None, TARGETS, STATE)
        assert (divergence is not None) == compared
        weighted = (torch.tensor([1.0, -2.0, 0.5]) * logprobs).sum()
        return weighted if divergence is None else weighted + (torch.tensor([0.3, 3.0]) * divergence).sum()

    assert torch.autograd.gradcheck(found, (logits,))


def test_the_entropy_is_a_measurement_and_has_no_gradient() -> None:
    assert not scores_of(P.log().requires_grad_(), None, TARGETS, STATE)[1].requires_grad

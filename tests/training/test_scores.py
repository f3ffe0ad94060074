"""The closed forms, against numbers by hand and against autograd."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steptool.training.scores import score


def test_two_words_by_hand() -> None:
    """p = (3/4, 1/4), q = (1/2, 1/2): H = 0.562335 nats, KL = log 2 - H = 0.130812."""
    logits, reference = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
    picked, entropy, divergence = score(logits, torch.tensor([1]), reference)
    assert picked.item() == pytest.approx(math.log(1 / 4))
    assert entropy.item() == pytest.approx(0.562335, abs=1e-6)
    assert divergence.item() == pytest.approx(0.130812, abs=1e-6)


def test_policy_equal_to_the_reference_diverges_by_exactly_nothing() -> None:
    logits = torch.randn(5, 300, generator=torch.Generator().manual_seed(1)) * 4
    assert score(logits, torch.zeros(5, dtype=torch.long), logits.clone())[2].tolist() == [0.0] * 5


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 4),
    words=st.integers(2, 7),
    with_reference=st.booleans(),
    spread=st.sampled_from([0.1, 1.0, 8.0]),
)
def test_values_and_gradients_are_those_of_autograd(
    seed: int, rows: int, words: int, with_reference: bool, spread: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64}
    logits = (torch.randn(rows, words, **draw) * spread).requires_grad_()
    reference = torch.randn(rows, words, **draw) if with_reference else None
    targets = torch.randint(words, (rows,), generator=generator)
    to_picked, to_divergence = torch.randn(rows, **draw), torch.randn(rows, **draw)

    log_p = logits.log_softmax(-1)
    picked = log_p[torch.arange(rows), targets]
    divergence = torch.zeros(rows, dtype=torch.float64)
    if reference is not None:
        divergence = (log_p.exp() * (log_p - reference.log_softmax(-1))).sum(-1)
    (slope,) = torch.autograd.grad(picked @ to_picked + divergence @ to_divergence, logits)

    found = score(logits, targets, reference)
    torch.testing.assert_close(found[0], picked)
    torch.testing.assert_close(found[1], -(log_p.exp() * log_p).sum(-1).detach())
    torch.testing.assert_close(found[2], divergence)
    (found_slope,) = torch.autograd.grad(found[0] @ to_picked + found[2] @ to_divergence, logits)
    torch.testing.assert_close(found_slope, slope)

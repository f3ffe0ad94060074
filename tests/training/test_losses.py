"""Loss terms: worked numbers, gradients against finite differences, sums over micro-batches."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steptool.training import losses
from steptool.training.losses import Clip


def terms(log_ratio: list[float], advantages: list[float], clip: Clip = Clip()) -> tuple[Tensor, dict[str, Tensor]]:
    count = len(log_ratio)
    return losses.policy_loss(
        torch.tensor(log_ratio),
        torch.zeros(count),
        torch.tensor(advantages),
        torch.ones(count),
        torch.ones(count),
        count,
        clip,
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, 0.0),
        (1.5, 2.0, -2.4, 1.0),  # 1.2 * 2
        (0.5, 2.0, -1.0, 0.0),  # moving back is never clipped
        (0.5, -2.0, 1.6, 1.0),  # 0.8 * -2
        (1.5, -2.0, 3.0, 0.0),
        (9.0, -2.0, 6.0, 1.0),  # dual clip: at most 3 * 2
    ],
)
def test_policy_loss_by_hand(ratio: float, advantage: float, loss: float, clipped: float) -> None:
    value, stats = terms([math.log(ratio)], [advantage])
    assert float(value) == pytest.approx(loss, rel=1e-5)
    assert float(stats["clip_fraction"]) == clipped
    assert float(stats["ratio"]) == pytest.approx(ratio, rel=1e-5)


def test_policy_equal_to_old_has_ratio_one_and_the_plain_policy_gradient() -> None:
    """Softmax over 4 actions in 3 states; gradient against central differences of -sum A log pi / M, float64."""
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    state, action = torch.tensor([0, 1, 2, 0, 2]), torch.tensor([1, 3, 0, 2, 2])
    advantages = torch.tensor([1.0, -2, 0.5, 3, -1], dtype=torch.float64)

    def logprobs(parameters: Tensor) -> Tensor:
        return parameters.log_softmax(-1)[state, action]

    ones = torch.ones(5, dtype=torch.float64)
    loss, stats = losses.policy_loss(logprobs(theta), logprobs(theta).detach(), advantages, ones, ones, 5, Clip())
    (gradient,) = torch.autograd.grad(loss, theta)
    assert (float(stats["ratio"]), float(stats["clip_fraction"]), float(stats["approx_kl"])) == (1, 0, 0)
    numeric = torch.zeros_like(theta)
    with torch.no_grad():
        for index in range(theta.numel()):
            nudge = torch.zeros(theta.numel(), dtype=torch.float64)
            nudge[index] = 1e-6
            up, down = (-(advantages * logprobs(theta + s * nudge.view_as(theta))).mean() for s in (1, -1))
            numeric.view(-1)[index] = (up - down) / 2e-6
    torch.testing.assert_close(gradient, numeric, atol=1e-8, rtol=1e-6)


def test_clipped_token_has_no_gradient() -> None:
    logprobs = torch.tensor([math.log(1.5), 0.0], requires_grad=True)
    loss, _ = losses.policy_loss(logprobs, torch.zeros(2), torch.ones(2), torch.ones(2), torch.ones(2), 2, Clip())
    loss.backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [0, -0.5]


def test_importance_weight_is_capped_and_scales_the_gradient() -> None:
    weight = losses.importance_weights(torch.tensor([0.0, 0, 0]), torch.tensor([0.0, -5, math.log(2)]), cap=2.0)
    assert weight.tolist() == pytest.approx([1, 2, 0.5])
    assert losses.importance_weights(torch.tensor([500.0]), torch.tensor([0.0]), cap=2.0).tolist() == [2]


def test_kl_penalty_by_hand() -> None:
    new, reference = torch.tensor([math.log(0.5), 9.0]), torch.tensor([math.log(0.25), 0.0])
    assert losses.kl_k1(new, reference, clamp=5).tolist() == pytest.approx([math.log(2), 5])


def test_huge_log_ratio_stays_finite() -> None:
    loss, stats = terms([500.0, -500.0], [-1.0, 1.0])
    assert loss.isfinite()
    assert all(value.isfinite() for value in stats.values())


@given(st.data())
def test_terms_of_any_split_add_up_to_the_whole(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 12))
    cut = data.draw(st.integers(1, count - 1))
    draw = torch.randn(4, count, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99)))).double()
    weights = draw[3].abs() + 0.1
    denominator = float(weights.sum())

    def loss(part: slice, total: float) -> float:
        arguments = (draw[0, part], draw[1, part], draw[2, part], torch.ones(count).double()[part], weights[part])
        return float(losses.policy_loss(*arguments, total, Clip())[0])

    whole = loss(slice(None), denominator)
    assert loss(slice(cut), denominator) + loss(slice(cut, None), denominator) == pytest.approx(whole, abs=1e-9)


def test_micro_batch_denominators_would_change_the_loss() -> None:
    """The negative control: one token of loss 4 and three of loss 0; 1 over all, (4 + 0) / 2 by micro-batch."""
    values, zeros, ones = torch.tensor([math.sqrt(8), 0, 0, 0]), torch.zeros(4), torch.ones(4)
    whole = float(losses.value_loss(values, zeros, ones, 4))
    parts = [float(losses.value_loss(values[p], zeros[p], ones[p], len(values[p]))) for p in (slice(1), slice(1, 4))]
    assert whole == pytest.approx(1)
    assert sum(parts) / 2 == pytest.approx(2)


def test_explained_variance_of_perfect_constant_and_inverted_critics() -> None:
    targets, ones = torch.tensor([0.0, 1, 2, 3]), torch.ones(4)
    assert losses.explained_variance(targets + 5, targets, ones) == pytest.approx(1)
    assert losses.explained_variance(torch.full((4,), 1.5), targets, ones) == pytest.approx(0)
    assert losses.explained_variance(-targets, targets, ones) == pytest.approx(-3)
    assert losses.explained_variance(targets, torch.ones(4), ones) == 0

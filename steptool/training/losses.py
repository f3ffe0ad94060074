"""The loss terms of PPO over sampled tokens: pure functions, tensors [M] in, one scalar out.

Every mean is `sum(weights * x) / denominator`, where the denominator is the sum of the weights of the
whole optimiser step, over all its micro-batches and processes. So terms of micro-batches add up, and
how the data is split changes nothing. Weights are 1 a token, or 1/|S_k| where each step counts once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_MAX_LOG_RATIO = 20.0  # exp(20) is far beyond every clip, and finite in float32


class Clip(NamedTuple):
    """Bounds of the probability ratio: [1 - low, 1 + high], and `dual` for negative advantages."""

    low: float = 0.2
    high: float = 0.2
    dual: float = 3.0


def weighted_mean(x: Tensor, weights: Tensor, denominator: Tensor | float) -> Tensor:
    return (weights * x).sum() / denominator


def importance_weights(old_logprobs: Tensor, engine_logprobs: Tensor, cap: float) -> Tensor:
    """w = min(pi_old / mu, cap), detached: corrects for the engine's own log-probabilities mu.

    pi_old comes from the training code, mu from the engine that sampled; their kernels differ.
    """
    return (old_logprobs - engine_logprobs).clamp(max=_MAX_LOG_RATIO).exp().clamp(max=cap).detach()


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    importance: Tensor,
    weights: Tensor,
    denominator: Tensor | float,
    clip: Clip,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped surrogate with dual clip.

        L_j = -w_j min(ratio_j A_j, clip(ratio_j, 1 - low, 1 + high) A_j),  and >= dual * A_j where A_j < 0

    The dual clip (arXiv 1912.09729) bounds the loss of a bad token that became much likelier.
    Returns the loss and the statistics ratio, clip_fraction and approx_kl (k3 of old against new).
    """
    log_ratio = (logprobs - old_logprobs).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    plain, clipped = ratio * advantages, ratio.clamp(1 - clip.low, 1 + clip.high) * advantages
    surrogate = torch.minimum(plain, clipped)
    bounded = torch.where(advantages < 0, torch.maximum(surrogate, clip.dual * advantages), surrogate)
    loss = -weighted_mean(importance * bounded, weights, denominator)
    with torch.no_grad():
        stats = {
            "ratio": weighted_mean(ratio, weights, denominator),
            "clip_fraction": weighted_mean((bounded != plain).to(ratio.dtype), weights, denominator),
            "approx_kl": weighted_mean(log_ratio.expm1() - log_ratio, weights, denominator),
        }
    return loss, stats


def value_loss(values: Tensor, targets: Tensor, weights: Tensor, denominator: Tensor | float) -> Tensor:
    """Half the mean squared error. Not clipped: that slows the critic and protects nothing here,
    because the trunk does not train through it."""
    return 0.5 * weighted_mean((values - targets).square(), weights, denominator)


def kl_k1(logprobs: Tensor, reference: Tensor, clamp: float) -> Tensor:
    """Unbiased estimate of KL(policy, reference) a token, in nats: log pi - log pi_ref. For the reward."""
    return (logprobs - reference).clamp(-clamp, clamp)


def explained_variance(values: Tensor, targets: Tensor, weights: Tensor) -> float:
    """1 - Var(target - value) / Var(target), weighted: 1 for a perfect critic, 0 for a constant one.

    0 where the targets do not vary.
    """

    def variance(x: Tensor) -> Tensor:
        mean = (weights * x).sum() / weights.sum()
        return (weights * (x - mean).square()).sum() / weights.sum()

    spread = variance(targets)
    return float(1 - variance(targets - values) / spread) if spread > 0 else 0.0

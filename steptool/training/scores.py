"""Log-probability, entropy and divergence of sampled tokens, with gradients in closed form.

For logits x of the policy and y of a reference, p = softmax(x), q = softmax(y), and a token a:

    log p(a) = x_a - log Σ e^x            d/dx = onehot(a) - p
    H        = - Σ p log p                no gradient: it is watched, not optimised
    KL(p‖q)  = Σ p (log p - log q)        d/dx = p (log p - log q - KL)

[M, vocabulary] numbers do not fit in a processor's cache, so each pass over them counts; these are a third of what
autograd makes of the same formulas.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def score(logits: Tensor, targets: Tensor, reference: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """[M] log-probability of `targets` [M], [M] entropy, [M] divergence from `reference` (0 without), all in nats.

    `logits` and `reference` are [M, vocabulary], floats; no gradient flows into `reference`.
    """
    picked, entropy, divergence = _Score.apply(logits, targets, reference)
    return picked, entropy, divergence


class _Score(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, reference: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        scores = torch.log_softmax(logits, -1)
        picked = scores.gather(1, targets[:, None]).squeeze(1)
        probabilities = scores.exp()
        entropy = -torch.linalg.vecdot(probabilities, scores)
        if reference is None:
            gap, divergence = None, torch.zeros_like(entropy)
        else:
            gap = scores - torch.log_softmax(reference, -1)
            divergence = torch.linalg.vecdot(probabilities, gap)
        ctx.save_for_backward(probabilities, targets, gap, divergence)
        ctx.mark_non_differentiable(entropy)
        return picked, entropy, divergence

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        probabilities, targets, gap, divergence = ctx.saved_tensors
        to_picked, _, to_divergence = gradients
        if gap is None:
            slope = probabilities * -to_picked[:, None]
        else:
            slope = gap * to_divergence[:, None]
            slope -= (divergence * to_divergence + to_picked)[:, None]
            slope *= probabilities
        slope.scatter_add_(1, targets[:, None], to_picked[:, None])
        return slope, None, None

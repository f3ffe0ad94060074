"""Log-probabilities of sampled tokens, and the divergence from a reference, over a whole vocabulary.

A distribution over the vocabulary is the largest thing that a training holds: 49,152 numbers a state. Gradients in
closed form go over them less often than autograd does:

    d log p(t) / dz = 1[t] − p          d KL(p, q) / dz = p (log p − log q − KL)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, theirs: Tensor | None, targets: Tensor, state: Tensor) -> tuple[Any, ...]:
        scores = logits.log_softmax(-1)
        picked = scores[state, targets]
        shares = scores.exp()
        entropy = -(shares * scores).sum(-1)
        divergence = None
        if theirs is not None:
            gap = scores.sub_(theirs)  # nobody needs the scores any more
            divergence = (shares * gap).sum(-1)
            ctx.save_for_backward(shares, gap, divergence, targets, state)
        else:
            ctx.save_for_backward(shares, None, None, targets, state)
        ctx.mark_non_differentiable(entropy)
        return picked, entropy, divergence

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, picked: Tensor, _entropy: Tensor | None, divergence: Tensor | None) -> tuple[Any, ...]:
        shares, gap, kl, targets, state = ctx.saved_tensors
        taken = torch.zeros(len(shares), dtype=shares.dtype, device=shares.device).index_add_(0, state, picked)
        if gap is None or divergence is None:
            slope = shares * -taken[:, None]
        else:
            # p (g (gap − KL) − taken)
            slope = torch.addcmul((-taken - divergence * kl)[:, None], gap, divergence[:, None]).mul_(shares)
        slope.index_put_((state, targets), picked, accumulate=True)
        return slope, None, None, None


def scores_of(
    logits: Tensor, theirs: Tensor | None, targets: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Log-probability [M] of each target in its state, entropy [S] and divergence [S] of each state.

    logits [S, vocabulary] of the policy, theirs [S, vocabulary] the log-probabilities of what it is compared with (the
    divergence is None without it), targets [M] tokens, state [M] which of the S states each was sampled in. Gradients
    flow to the logits, from the log-probabilities and the divergence.
    """
    found: tuple[Tensor, Tensor, Tensor | None] = _Scores.apply(logits, theirs, targets, state)
    return found

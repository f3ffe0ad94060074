"""Measures a batch under the policy before training, and fits the value head to it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from steptool.system.progress import progress
from steptool.training import losses
from steptool.training.batch import Batch
from steptool.training.model import PolicyWithValue, ValueHead
from steptool.training.trainer import LowerCache, require_finite


class Measurement(NamedTuple):
    """Of the policy before training: [N], [N], [N, hidden], [E, hidden]; of the reference: [N], [N, hidden] or None."""

    logprobs: Tensor
    entropy: Tensor
    features: Tensor
    end_features: Tensor
    reference: Tensor | None
    reference_features: Tensor | None


@torch.no_grad()
def measure(policy: PolicyWithValue, batch: Batch, lower: LowerCache, *, reference: bool) -> Measurement:
    """One pass over all rows; `reference` measures the policy without its adapter too."""
    logprobs, entropy = torch.zeros(batch.tokens), torch.zeros(batch.tokens)
    hidden = policy.value_head.linear.in_features
    features, ends = torch.zeros(batch.tokens, hidden), torch.zeros(len(batch.episodes), hidden)
    theirs = (torch.zeros(batch.tokens), torch.zeros(batch.tokens, hidden)) if reference else (None, None)
    reference_logprobs, reference_features = theirs
    with progress("measure", len(batch.rows), "rows") as advance:
        for row in batch.rows:
            output = policy.upper(row, lower(row))
            logprobs[row.tokens] = output.logprobs.cpu()
            entropy[row.tokens] = output.entropy.cpu()
            features[row.tokens] = output.features.cpu()
            ends[list(row.episodes)] = output.end_features.cpu()
            if reference_logprobs is not None and reference_features is not None:
                output = policy.upper(row, lower(row), reference=True)
                reference_logprobs[row.tokens] = output.logprobs.cpu()
                reference_features[row.tokens] = output.features.cpu()
            advance(1)
    require_finite(batch, logprobs, "the policy gives a sampled token probability 0", "start from a sound policy")
    return Measurement(logprobs, entropy, features, ends, reference_logprobs, reference_features)


def engine_kl(batch: Batch, logprobs: Tensor) -> float:
    """Divergence of the policy that gives `logprobs` [N] from the distribution that the engine sampled from, in nats a
    token, estimated from its samples (k3)."""
    gap = (batch.engine_logprobs() - logprobs).clamp(-20, 20)
    return float((gap.neg().expm1() + gap).mean())


def fit_value_head(
    head: ValueHead, features: Tensor, returns: Tensor, weights: Tensor, *, steps: int, learning_rate: float
) -> None:
    """`steps` full-batch steps of the head on `features` [N, hidden] towards `returns` [N]; a fresh one starts at their
    mean.

    Use few steps: a head that has memorised these returns leaves no advantage.
    """
    total = weights.sum()
    if total == 0:
        return
    if not head.linear.weight.any():
        with torch.no_grad():
            head.linear.bias.fill_(float((weights * returns).sum() / total))
    adam = torch.optim.Adam(head.parameters(), lr=learning_rate)
    for _ in range(steps):
        adam.zero_grad()
        losses.value_loss(head(features), returns, weights, total).backward()
        adam.step()
    adam.zero_grad()

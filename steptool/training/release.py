"""The arithmetic of the code that was released with the paper (github.com/yuyq18/StepTool, 121a6ac, on TRL 0.10.1), in
our own words, so that what it does can be measured. Pure functions on 1-D tensors of one trajectory's M sampled tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from steptool.training.credit import Credit


def release_rewards(rewards: Sequence[float]) -> list[float]:
    """r_t (T - t) of the steps t = 0 ... T: the last step's, which is the verdict, counts nothing, and the first of
    many counts most."""
    return [reward * (len(rewards) - 1 - step) for step, reward in enumerate(rewards)]


def release_gae(
    rewards: Sequence[float],
    values: Tensor,
    step_ids: Sequence[int],
    predict: Sequence[int],
    *,
    gamma: float,
    lambda_: float,
    penalties: Tensor,
) -> Credit:
    """GAE over all tokens that follow the first action, with reward and value of what was not sampled set to 0.

        A_j = rho_j - V_j + (gamma lambda)^E_j (gamma V_{j+1} + gamma lambda A_{j+1})

    E_j tokens of the environment lie between sampled token j and the next, 0 within a step. `rho_j` is the reward of
    the step on its last token, less `penalties` [M]. gamma and lambda decay by token, those of the environment
    included: after a reply of 200 tokens, .99 and .95 leave 5e-6 of what follows, so that every step is a bandit of
    its own. No value is bootstrapped after the last token.
    """
    rho, v = (-penalties.double()).tolist(), [*values.double().tolist(), 0.0]
    ends = [j for j in range(len(rho)) if j + 1 == len(rho) or step_ids[j + 1] != step_ids[j]]
    for reward, end in zip(rewards, ends, strict=True):
        rho[end] += reward
    gaps = [after - before - 1 for before, after in pairwise(predict)] + [0]
    advantages, following = [0.0] * len(rho), 0.0
    for j in reversed(range(len(rho))):
        seen = gamma * v[j + 1] + gamma * lambda_ * following
        following = rho[j] - v[j] + (gamma * lambda_) ** gaps[j] * seen
        advantages[j] = following
    result = torch.tensor(advantages, dtype=torch.float64)
    return Credit(result, result + values.double())


def release_whiten(advantages: Tensor) -> Tensor:
    """(A - mean) / sqrt(var + 1e-8) over the batch, the variance of a sample (n - 1)."""
    return (advantages - advantages.mean()) * torch.rsqrt(advantages.var(correction=1) + 1e-8)

"""Credit assignment over the sampled tokens of one trajectory: pure functions on 1-D tensors.

Shapes: M sampled tokens, K steps. Environment tokens are not in these tensors at all, so no reward,
value, KL or trace decay can leak through them. `step_ids[j]` is the step of token j; the values are
read at the position that predicts token j, i.e. before the token is known.

Source: StepTool (arXiv 2410.07745) for step rewards, GAE (arXiv 1506.02438) for the recursion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Discounts(NamedTuple):
    """gamma and lambda of GAE, each in [0, 1]: between two steps, and between two tokens of one step."""

    gamma_step: float = 0.99
    lambda_step: float = 0.95
    gamma_token: float = 1.0
    lambda_token: float = 1.0


class Credit(NamedTuple):
    """`advantages` [M] and `targets` [M] = advantage + value, both before whitening, float64."""

    advantages: Tensor
    targets: Tensor


def step_bounds(step_ids: Tensor, steps: int) -> list[tuple[int, int]]:
    """First and one-past-last token of every step.

    Raises ValueError unless the ids run 0, …, `steps` - 1 in order with at least one token each.
    """
    ids, counts = torch.unique_consecutive(step_ids, return_counts=True)
    if ids.tolist() != list(range(steps)):
        raise ValueError(f"step_ids run through {ids.tolist()}, expected every step of 0..{steps - 1} once, in order")
    stops = counts.cumsum(0).tolist()
    return list(zip([0, *stops[:-1]], stops, strict=True))


def token_gae(
    rewards: Sequence[float],
    values: Tensor,
    step_ids: Tensor,
    discounts: Discounts,
    *,
    bootstrap: float = 0.0,
    penalties: Tensor | None = None,
) -> Credit:
    """GAE with every sampled token as a state; r_k lands on the last token of step k.

        rho_j   = r_k [j = e_k] - penalty_j
        delta_j = rho_j + gamma_j V_{j+1} - V_j
        A_j     = delta_j + gamma_j lambda_j A_{j+1}

    with (gamma, lambda) of the step at e_k and of the token elsewhere. `bootstrap` is V_{M+1}: 0 after
    an ending, the critic's value after a truncation. `penalties` [M] is beta * kl, detached.
    """
    rho, ends = _token_rewards(rewards, step_ids, penalties)
    v = [*values.double().tolist(), bootstrap]
    advantages = [0.0] * (len(v) - 1)
    following = 0.0
    for j in reversed(range(len(advantages))):
        gamma, lambda_ = discounts[:2] if j in ends else discounts[2:]
        following = rho[j] + gamma * v[j + 1] - v[j] + gamma * lambda_ * following
        advantages[j] = following
    result = torch.tensor(advantages, dtype=torch.float64)
    return Credit(result, result + values.double())


def _token_rewards(
    rewards: Sequence[float], step_ids: Tensor, penalties: Tensor | None
) -> tuple[list[float], frozenset[int]]:
    bounds = step_bounds(step_ids, len(rewards))
    rho = [0.0] * len(step_ids) if penalties is None else (-penalties.double()).tolist()
    for reward, (_, stop) in zip(rewards, bounds, strict=True):
        rho[stop - 1] += reward
    return rho, frozenset(stop - 1 for _, stop in bounds)


def step_gae(
    rewards: Sequence[float],
    values: Tensor,
    step_ids: Tensor,
    discounts: Discounts,
    *,
    bootstrap: float = 0.0,
    penalties: Tensor | None = None,
) -> Credit:
    """GAE with every step as one action, its value state the step's first token.

        R_k = r_k - sum of the step's penalties;  delta_k = R_k + gamma V(s_{k+1}) - V(s_k)
        A_k = delta_k + gamma lambda A_{k+1}, the same for all tokens of the step

    Only targets at first tokens are value targets; the rest repeat them.
    """
    bounds = step_bounds(step_ids, len(rewards))
    totals = penalised(rewards, bounds, penalties)
    v = [*(float(values[start]) for start, _ in bounds), bootstrap]
    advantages = torch.empty(len(step_ids), dtype=torch.float64)
    targets = torch.empty_like(advantages)
    following = 0.0
    for k in reversed(range(len(bounds))):
        gamma, lambda_ = discounts[:2]
        following = totals[k] + gamma * v[k + 1] - v[k] + gamma * lambda_ * following
        advantages[slice(*bounds[k])] = following
        targets[slice(*bounds[k])] = following + v[k]
    return Credit(advantages, targets)


def penalised(rewards: Sequence[float], bounds: Sequence[tuple[int, int]], penalties: Tensor | None) -> list[float]:
    """R_k = r_k - sum of the penalties of the tokens of step k."""
    if penalties is None:
        return [float(reward) for reward in rewards]
    return [
        reward - float(penalties[start:stop].double().sum())
        for reward, (start, stop) in zip(rewards, bounds, strict=True)
    ]


def whiten(advantages: Tensor, weights: Tensor, *, centre: bool = True) -> Tensor:
    """Shift (where `centre`) and scale to weighted mean 0 and standard deviation 1 over the whole batch, [N] -> [N].

    Weights 1 make every token count the same, 1/|S_k| every step. Call it once on everything that is
    trained on, never on a micro-batch.
    """
    total = weights.sum()
    centred = advantages - (weights * advantages).sum() / total if centre else advantages
    variance = (weights * centred.square()).sum() / total
    return centred / (variance.sqrt() + 1e-8)

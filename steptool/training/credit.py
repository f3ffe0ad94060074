"""Credit assignment over the sampled tokens of one trajectory: pure functions on 1-D tensors.

Shapes: M sampled tokens, K steps. Environment tokens are not in these tensors at all, so no reward,
value, KL or trace decay can leak through them. `step_ids[j]` is the step of token j; the values are
read at the position that predicts token j, i.e. before the token is known.

Source: StepTool (arXiv 2410.07745) for step rewards, GAE (arXiv 1506.02438) for the recursion.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
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


def returns_to_go(rewards: Sequence[float], gamma: float) -> list[float]:
    """G_k = r_k + gamma G_{k+1} of every step."""
    following, returns = 0.0, []
    for reward in reversed(rewards):
        following = reward + gamma * following
        returns.append(following)
    return returns[::-1]


def leave_one_out(rewards: Sequence[Sequence[float]], gamma: float) -> list[list[float]]:
    """Critic-free step advantages of the attempts at one task: A_k = G_k - b_k.

    b_k is the mean G_k of the *other* attempts that reached step k; where none did, their mean at the
    deepest step that any of them reached. It depends on the siblings only, so it is independent of the
    action and the gradient stays unbiased. (Summing r_l - mean r_l from k on is biased: how many means
    are subtracted depends on when the attempt itself stops.)

    Raises ValueError for fewer than two attempts, or an attempt without steps.
    """
    if len(rewards) < 2 or not all(rewards):
        raise ValueError("needs at least two attempts, each with a step")
    returns = [returns_to_go(attempt, gamma) for attempt in rewards]
    advantages = []
    for index, own in enumerate(returns):
        siblings = [i for i in range(len(returns)) if i != index]
        deepest = max(len(returns[i]) for i in siblings) - 1
        baselines = []
        for k in range(len(own)):
            alive = [returns[i][min(k, deepest)] for i in siblings if len(returns[i]) > min(k, deepest)]
            baselines.append(sum(alive) / len(alive))
        advantages.append([value - baseline for value, baseline in zip(own, baselines, strict=True)])
    return advantages


def where_attempts_part(
    histories: Sequence[Sequence[Hashable]], tokens: Sequence[Sequence[int]], returns: Sequence[Sequence[float]]
) -> list[list[float]]:
    """Critic-free token advantages of the attempts at one task, from the tree that their tokens make.

    histories[i][j] stands for all that came before sampled token tokens[i][j] of attempt i, equal where that
    is equal; returns[i][j] is the return from its step on. Of the n attempts that share its history,

        A_j = n / (n - 1) (mean return of those that took the same token - mean return of all n)

    and 0 where n = 1: the return minus the mean of the others, averaged over those that did the same. So the credit
    goes to the token at which attempts part. It does not go to the tokens that all of them took, nor to those that
    follow where no other attempt has been. The factors depend on the history and the siblings only, so a
    history's expected gradient is the policy gradient's, weighted by how likely siblings share it.
    """
    here: dict[Hashable, list[float]] = defaultdict(list)
    onward: dict[tuple[Hashable, int], list[float]] = defaultdict(list)
    for attempt in zip(histories, tokens, returns, strict=True):
        for history, token, value in zip(*attempt, strict=True):
            here[history].append(value)
            onward[history, token].append(value)

    def advantage(history: Hashable, token: int) -> float:
        everyone, same = here[history], onward[history, token]
        n = len(everyone)
        return 0.0 if n == len(same) else n / (n - 1) * (sum(same) / len(same) - sum(everyone) / n)

    return [[advantage(*at) for at in zip(*attempt, strict=True)] for attempt in zip(histories, tokens, strict=True)]


def whiten(advantages: Tensor, weights: Tensor, *, centre: bool = True) -> Tensor:
    """Shift (where `centre`) and scale to weighted mean 0 and standard deviation 1 over the whole batch, [N] -> [N].

    Weights 1 make every token count the same, 1/|S_k| every step. Call it once on everything that is
    trained on, never on a micro-batch.
    """
    total = weights.sum()
    centred = advantages - (weights * advantages).sum() / total if centre else advantages
    variance = (weights * centred.square()).sum() / total
    return centred / (variance.sqrt() + 1e-8)

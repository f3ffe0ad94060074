"""Credit over a whole batch: against a critic, or against the other attempts at the task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from steptool.training.batch import Batch, Episode
from steptool.training.credit import (
    Credit,
    Discounts,
    leave_one_out,
    penalised,
    returns_to_go,
    step_bounds,
    where_attempts_part,
)

Baseline = Literal["branches", "attempts"]
"""What an attempt is compared with: the others where their tokens first differ, or the others at the same step."""


def critic_advantages(
    batch: Batch, estimate: Callable[..., Credit], discounts: Discounts, values: Tensor, ends: Tensor, penalties: Tensor
) -> Credit:
    """Advantages and value targets [N] in float32, not whitened, by `token_gae` or `step_gae`.

    `values` [N] are read before each token, `ends` [E] after the last of each trajectory; `penalties` [N] reduce the
    rewards.
    """
    parts = [
        estimate(
            item.rewards,
            values[batch.tokens_of(i)],
            batch.step_ids(i),
            discounts,
            bootstrap=float(ends[i]) if item.truncated else 0.0,
            penalties=penalties[batch.tokens_of(i)],
        )
        for i, item in enumerate(batch.episodes)
    ]
    return Credit(torch.cat([p.advantages for p in parts]).float(), torch.cat([p.targets for p in parts]).float())


def sibling_advantages(batch: Batch, penalties: Tensor, baseline: Baseline, decay: float) -> Tensor:
    """[N] advantages of all attempts over the others at their task. `penalties` [N] reduce the rewards."""
    by_task: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(batch.episodes):
        by_task[item.task_id].append(index)
    advantages = torch.zeros(batch.tokens)
    for members in by_task.values():
        rewards = []
        for index in members:
            item = batch.episodes[index]
            bounds = step_bounds(batch.step_ids(index), len(item.rewards))
            rewards.append(penalised(item.rewards, bounds, penalties[batch.tokens_of(index)]))
        found = advantages_of_attempts([batch.episodes[index] for index in members], rewards, baseline, decay)
        for index, values in zip(members, found, strict=True):
            advantages[batch.tokens_of(index)] = torch.tensor(values)
    return advantages


def advantages_of_attempts(
    attempts: Sequence[Episode], rewards: Sequence[Sequence[float]], baseline: Baseline, decay: float
) -> list[list[float]]:
    """Token advantages of the attempts at one task against each other, from their lambda-returns

        G_k = sum_l decay^l r_{k+l}             decay = gamma lambda

    which is GAE with V = 0, and for rewards shaped by a potential GAE of the plain rewards with that potential as the
    critic (arXiv cs/1106.5267). At lambda = 1 the potential cancels where histories are equal (`branches`), and only
    outcomes and costs count. Below 1, what a call earned counts by itself too. That gives less variance, and the bias
    of a critic that takes every useful call for progress.
    """
    if baseline == "branches":
        returns = [returns_to_go(attempt, decay) for attempt in rewards]
        return where_attempts_part(
            [item.histories for item in attempts],
            [item.targets for item in attempts],
            [[own[step] for step in item.step_ids] for item, own in zip(attempts, returns, strict=True)],
        )
    by_step = leave_one_out(rewards, decay)
    return [[own[step] for step in item.step_ids] for item, own in zip(attempts, by_step, strict=True)]


def with_different_siblings(
    episodes: Sequence[Episode], baseline: Baseline, decay: float
) -> tuple[list[Episode], dict[str, int]]:
    """The attempts that can be compared with others at their task, and how many were left out.

    Left out and counted: truncated attempts (without a critic their return is not known), an attempt without a
    sibling, and all attempts at a task where they ended alike, so that every advantage is 0.
    """
    by_task: dict[str, list[Episode]] = defaultdict(list)
    for item in episodes:
        if not item.truncated:
            by_task[item.task_id].append(item)
    kept: list[Episode] = []
    skipped = {"skipped_truncated": sum(item.truncated for item in episodes), "skipped_alone": 0, "skipped_alike": 0}
    for attempts in by_task.values():
        if len(attempts) < 2:
            skipped["skipped_alone"] += 1
            continue
        found = advantages_of_attempts(attempts, [item.rewards for item in attempts], baseline, decay)
        if all(abs(advantage) < 1e-9 for own in found for advantage in own):
            skipped["skipped_alike"] += len(attempts)
        else:
            kept += attempts
    return kept, skipped

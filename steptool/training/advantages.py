"""Credit over a whole batch: against a critic, or against the other attempts at the task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from steptool.training.batch import Batch
from steptool.training.compared import Compared, advantages_by
from steptool.training.credit import Credit, Discounts, penalised, step_bounds
from steptool.training.siblings import Comparison, advantages_of_attempts, groups_of


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


def sibling_advantages(batch: Batch, penalties: Tensor, comparison: Comparison, gamma: float) -> Tensor:
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
        found = advantages_of_attempts([batch.episodes[index] for index in members], rewards, comparison, gamma)
        for index, values in zip(members, found, strict=True):
            advantages[batch.tokens_of(index)] = torch.tensor(values)
    return advantages


def group_advantages(batch: Batch, compared: Compared, gamma: float) -> Tensor:
    """[N] advantages of all attempts, each of a group of those at its task."""
    groups, _ = groups_of(batch.episodes)
    by_attempt = {
        item.trajectory_id: own
        for group in groups
        for item, own in zip(group, advantages_by(compared, group, gamma), strict=True)
    }
    return torch.cat([torch.tensor(by_attempt[item.trajectory_id]) for item in batch.episodes])

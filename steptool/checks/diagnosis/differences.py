"""What a round can teach: whether attempts at a task differ, in what, and at how many tokens credit would land."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from steptool.checks.diagnosis.counts import sampled_tokens
from steptool.core.types import ScoredTrajectory
from steptool.training.compared import Compared, advantages_by
from steptool.training.episode import episode
from steptool.training.siblings import groups_of

NO_SPREAD = 1e-12
"""A sum of squares below it is none."""
ZERO = 1e-9
"""An advantage nearer to 0 than this is 0."""


def discounted(rewards: Sequence[float], gamma: float) -> float:
    """Σ γ^t r_t."""
    return float(sum(gamma**t * reward for t, reward in enumerate(rewards)))


class Explained(NamedTuple):
    """How much of the spread of returns within tasks something explains, each in [0, 1]."""

    by_steps: float
    by_tokens: float
    by_verdict: float
    direction: float
    """Correlation of the return with the number of steps (or of tokens, if that explains more), in [-1, 1]."""

    @property
    def by_length(self) -> float:
        return max(self.by_steps, self.by_tokens)


def explained(scored: Sequence[ScoredTrajectory], returns: Sequence[float]) -> Explained | None:
    """Squared correlations over all attempts, each number less the mean of its task; None where returns do not spread.

    An attempt without a verdict counts as one of verdict 0.
    """
    tasks = [item.trajectory.task_id for item in scored]
    earned = _within(tasks, returns)
    if earned @ earned < NO_SPREAD:
        return None
    steps = _correlation(earned, _within(tasks, [len(item.trajectory.steps) for item in scored]))
    tokens = _correlation(earned, _within(tasks, [sampled_tokens(item.trajectory) for item in scored]))
    verdict = _correlation(earned, _within(tasks, [item.solved or 0.0 for item in scored]))
    return Explained(steps**2, tokens**2, verdict**2, steps if abs(steps) >= abs(tokens) else tokens)


Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def _within(tasks: Sequence[str], values: Sequence[float]) -> Array:
    """Each value less the mean of its task."""
    by_task: dict[str, list[float]] = defaultdict(list)
    for task, value in zip(tasks, values, strict=True):
        by_task[task].append(value)
    means = {task: sum(own) / len(own) for task, own in by_task.items()}
    return np.array([value - means[task] for task, value in zip(tasks, values, strict=True)], dtype=np.float64)


def _correlation(one: Array, two: Array) -> float:
    """Of two centred lists; 0 where one does not spread."""
    scale = float((one @ one) * (two @ two))
    return float(one @ two) / scale**0.5 if scale > NO_SPREAD**2 else 0.0


def share_with_advantage(
    credited: Sequence[tuple[ScoredTrajectory, Sequence[float]]], comparison: Compared, gamma: float
) -> float:
    """Of all sampled tokens: those whose advantage over the other attempts at the task is not zero, in [0, 1].

    `credited` are attempts with what their steps earn.

    Raises DataError for attempts that were not sampled.
    """
    by_task: dict[str, list[tuple[ScoredTrajectory, Sequence[float]]]] = defaultdict(list)
    for item, own in credited:
        by_task[item.trajectory.task_id].append((item, own))
    with_one = sampled = 0
    for given in by_task.values():  # one task after the other: token streams take more memory than attempts
        found = [episode(item, list(own)) for item, own in given]
        episodes = [item for item in found if item is not None]
        sampled += sum(len(item.predict) for item in episodes)
        groups, _ = groups_of(episodes)
        for group in groups:
            advantages = advantages_by(comparison, group, gamma)
            with_one += sum(abs(value) > ZERO for own in advantages for value in own)
    return with_one / max(1, sampled)


def same_attempts(scored: Sequence[ScoredTrajectory]) -> float:
    """Of the tasks with several attempts: those whose attempts are the same tokens, in [0, 1]."""
    streams: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for item in scored:
        streams[item.trajectory.task_id].append(item.trajectory.token_ids)
    several = [own for own in streams.values() if len(own) > 1]
    return sum(len(set(own)) == 1 for own in several) / max(1, len(several))

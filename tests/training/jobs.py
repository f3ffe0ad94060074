"""Trainings in memory, of made-up trajectories with given rewards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from steptool.core.types import ScoredTrajectory
from steptool.methods.base import AdapterMethod
from steptool.training.job import Data, Job
from steptool.training.model import PolicyWithValue


class Given:
    """A reward form that gives every trajectory what a test wrote down for it."""

    def __init__(self, scored: Sequence[ScoredTrajectory], rewards: Sequence[Sequence[float]], gamma: float) -> None:
        self._rewards = {item.trajectory.id: own for item, own in zip(scored, rewards, strict=True)}
        self.gamma = gamma

    def rewards(self, scored: ScoredTrajectory) -> Sequence[float]:
        return self._rewards[scored.trajectory.id]


def final_rewards(scored: Sequence[ScoredTrajectory]) -> list[list[float]]:
    """What the last step is paid: whether it solved the task."""
    return [[0.0] * (len(s.judgements) - 1) + [s.solved or 0.0] if s.judgements else [] for s in scored]


def data_of(
    scored: Sequence[ScoredTrajectory], rewards: Sequence[Sequence[float]] | None = None, *, gamma: float = 0.99
) -> Data:
    """`rewards` are one a step, `final_rewards` where none are given."""
    reward = Given(scored, final_rewards(scored) if rewards is None else rewards, gamma)
    return Data(format=cast(Any, None), reward=reward, scored=scored)


def fit(
    policy: PolicyWithValue,
    method: AdapterMethod,
    scored: Sequence[ScoredTrajectory],
    rewards: Sequence[Sequence[float]] | None = None,
    *,
    gamma: float = 0.99,
    row_tokens: int = 64,
    seed: int = 1,
    **settings: Any,
) -> dict[str, float]:
    """Train `policy` in place; `settings` are those of the Job."""
    data, nowhere = data_of(scored, rewards, gamma=gamma), Path("nowhere")
    return method.fit(policy, Job(nowhere, nowhere, data, seed, "float32", row_tokens, **settings))

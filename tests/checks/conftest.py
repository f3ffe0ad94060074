"""Healthy batches of scored trajectories, for tests to break."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from steptool.core.types import ScoredTrajectory
from steptool.testing import call, finish, judgement, scored, step, trajectory

TOKENS = {"context_ids": (1, 2), "action_ids": (7, 8, 9), "logprobs": (-0.1, -0.2, -0.3)}


def make_scored(task: int, attempt: int, solved: float) -> ScoredTrajectory:
    """One lookup, then Finish: two steps of three sampled tokens each."""
    lookup = step(call("find", n=task), "{}", **TOKENS)
    made = trajectory(lookup, finish("x", **TOKENS), of=f"t{task}", policy="sft", seed=17, attempt=attempt)
    return scored(made, judgement(success=1, contribution=solved), judgement(solved=solved))


def make_batch(tasks: int) -> list[ScoredTrajectory]:
    return [make_scored(task, attempt, solved=float(task % 3 != 0)) for task in range(tasks) for attempt in range(2)]


@pytest.fixture(scope="session")
def batch() -> Callable[[int], list[ScoredTrajectory]]:
    """Two attempts at each of so many tasks; every third task, from the first, stays unsolved."""
    return make_batch


@pytest.fixture
def healthy() -> list[ScoredTrajectory]:
    return make_batch(6)

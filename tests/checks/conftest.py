"""Healthy batches of scored trajectories, for tests to break."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from steptool.core.types import (
    FINISH,
    Judgement,
    Observation,
    Revision,
    Sampling,
    ScoredTrajectory,
    Step,
    StopReason,
    ToolCall,
    Trajectory,
)

SUBSETS = ("G1_instruction", "G2_instruction")


def make_scored(task: int, attempt: int, solved: float) -> ScoredTrajectory:
    """One lookup, then Finish: two steps of three sampled tokens each."""
    tokens = {"context_ids": (1, 2), "action_ids": (7, 8, 9), "action_logprobs": (-0.1, -0.2, -0.3)}
    lookup = Step(call=ToolCall(name="find", arguments={"n": task}), observation=Observation(text="{}"), **tokens)
    finish = Step(call=ToolCall(name=FINISH, arguments={"answer": "x"}), **tokens)
    trajectory = Trajectory.create(
        task_id=f"t{task}",
        subset=SUBSETS[task % 2],
        steps=(lookup, finish),
        stop_reason=StopReason.finished,
        answer="x",
        policy=Revision(name="sft", revision="1"),
        world=Revision(name="mini", revision="1"),
        sampling=Sampling(temperature=1, top_p=1, max_calls=8, max_step_tokens=64, max_tokens=1024),
        seed=17,
        attempt=attempt,
    )
    judgements = (Judgement(success=1, contribution=solved), Judgement(solved=solved))
    return ScoredTrajectory(
        trajectory=trajectory, judgements=judgements, annotator=Revision(name="rules", revision="1")
    )


def make_batch(tasks: int) -> list[ScoredTrajectory]:
    return [make_scored(task, attempt, solved=float(task % 3 != 0)) for task in range(tasks) for attempt in range(2)]


@pytest.fixture(scope="session")
def batch() -> Callable[[int], list[ScoredTrajectory]]:
    """Two attempts at each of so many tasks of two subsets; every third task, from the first, stays unsolved."""
    return make_batch


@pytest.fixture
def healthy() -> list[ScoredTrajectory]:
    return make_batch(6)

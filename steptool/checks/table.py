"""Scored trajectories as flat pandas tables: one row a step, one a trajectory, one a subset.

Great Expectations judges columns of single values, so lists (token ids, log-probabilities) become counts
and extremes here. NaN stands for "does not apply": the success of a last step, the log-probability of a
step that nobody sampled. `*_COLUMNS` say what each column means; the tables hold exactly these, in order.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from steptool.core.types import Revision, ScoredTrajectory

ROW = {"row": "number of the row, from 0", "trajectory_id": "content hash", "task_id": "", "subset": "", "attempt": ""}

STEP_COLUMNS = ROW | {
    "step": "from 0",
    "is_last": "the last step carries `solved`, the others success and contribution",
    "n_steps": "of its trajectory",
    "stop_reason": "of its trajectory",
    "tool": "name called, empty without a call",
    "has_call": "the action parsed as a call",
    "parse_error": "empty with a call",
    "observation_error": "kind of error that the tool answered with, else empty",
    "success": "in [0, 1]; NaN in the last step",
    "contribution": "in [0, 1]; NaN in the last step",
    "solved": "in [0, 1]; NaN before the last step",
    "reward": "of this step; NaN where it is missing",
    "n_context_tokens": "new tokens before the action",
    "n_action_tokens": "sampled tokens",
    "n_logprobs": "log-probabilities of sampled tokens",
    "n_bad_logprobs": "of these, NaN or infinite",
    "logprob_max": "largest finite log-probability, in nats; NaN without any",
    "logprob_mean": "mean finite log-probability, in nats; NaN without any",
    "source": "file and line of the record",
}

TRAJECTORY_COLUMNS = ROW | {
    "is_copy": "an earlier row has the same trajectory_id",
    "stop_reason": "",
    "broken": "1 if an engine or world fault cut it short, else 0",
    "finished": "it ended with an answer",
    "n_steps": "",
    "max_calls": "budget of steps",
    "n_tokens": "context and action tokens",
    "max_tokens": "budget of tokens",
    "solved": "in [0, 1]",
    "n_rewards": "rewards given for it; one a step",
    "reward_sum": "undiscounted",
    "discounted_return": "sum of gamma^t r_t",
    "return_error": "distance of discounted_return from its closed form; NaN where that was not asked for",
    "policy": "name@revision",
    "world": "name@revision",
    "annotator": "name@revision",
    "source": "file and line of the record",
}

SUBSET_COLUMNS = {
    "row": "number of the row, from 0",
    "subset": "",
    "tasks": "distinct tasks",
    "trajectories": "",
    "solve_rate": "mean of solved; NaN without trajectories",
}


def step_table(
    scored: Sequence[ScoredTrajectory], rewards: Sequence[Sequence[float]], source: str = "scored"
) -> pd.DataFrame:
    """One row a step. `source` is the file that `scored` was read from, whose first record is in line 2."""
    rows: list[dict[str, Any]] = []
    for index, (record, earned) in enumerate(zip(scored, rewards, strict=True)):
        trajectory = record.trajectory
        last = len(trajectory.steps) - 1
        for number, (step, judgement) in enumerate(zip(trajectory.steps, record.judgements, strict=True)):
            finite = [value for value in step.action_logprobs if math.isfinite(value)]
            rows.append(
                _identity(record, len(rows))
                | {
                    "step": number,
                    "is_last": number == last,
                    "n_steps": last + 1,
                    "stop_reason": trajectory.stop_reason.value,
                    "tool": step.call.name if step.call else "",
                    "has_call": step.call is not None,
                    "parse_error": step.parse_error or "",
                    "observation_error": (step.observation.error or "") if step.observation else "",
                    "success": _number(judgement.success),
                    "contribution": _number(judgement.contribution),
                    "solved": _number(judgement.solved),
                    "reward": earned[number] if number < len(earned) else math.nan,
                    "n_context_tokens": len(step.context_ids),
                    "n_action_tokens": len(step.action_ids),
                    "n_logprobs": len(step.action_logprobs),
                    "n_bad_logprobs": len(step.action_logprobs) - len(finite),
                    "logprob_max": max(finite, default=math.nan),
                    "logprob_mean": sum(finite) / len(finite) if finite else math.nan,
                    "source": _place(source, index),
                }
            )
    return pd.DataFrame(rows, columns=list(STEP_COLUMNS))


def trajectory_table(
    scored: Sequence[ScoredTrajectory],
    rewards: Sequence[Sequence[float]],
    source: str = "scored",
    *,
    gamma: float = 1.0,
    expected_returns: Sequence[float] | None = None,
) -> pd.DataFrame:
    """One row a trajectory. `expected_returns` are the discounted returns in closed form, to hold rewards against."""
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for index, (record, earned) in enumerate(zip(scored, rewards, strict=True)):
        trajectory = record.trajectory
        discounted = sum(gamma**step * reward for step, reward in enumerate(earned))
        expected = expected_returns[index] if expected_returns is not None else math.nan
        rows.append(
            _identity(record, index)
            | {
                "is_copy": trajectory.id in seen,
                "stop_reason": trajectory.stop_reason.value,
                "broken": float(not trajectory.stop_reason.terminated),
                "finished": trajectory.stop_reason.value == "finished",
                "n_steps": len(trajectory.steps),
                "max_calls": trajectory.sampling.max_calls,
                "n_tokens": len(trajectory.token_ids),
                "max_tokens": trajectory.sampling.max_tokens,
                "solved": record.solved,
                "n_rewards": len(earned),
                "reward_sum": float(sum(earned)),
                "discounted_return": float(discounted),
                "return_error": abs(discounted - expected),
                "policy": _revision(trajectory.policy),
                "world": _revision(trajectory.world),
                "annotator": _revision(record.annotator),
                "source": _place(source, index),
            }
        )
        seen.add(trajectory.id)
    return pd.DataFrame(rows, columns=list(TRAJECTORY_COLUMNS))


def subset_table(trajectories: pd.DataFrame, subsets: Collection[str] = ()) -> pd.DataFrame:
    """One row a subset of `trajectories`, and one for each of `subsets` that it lacks."""
    names = sorted({*trajectories["subset"], *subsets})
    groups = [trajectories[trajectories["subset"] == name] for name in names]
    return pd.DataFrame(
        {
            "row": range(len(names)),
            "subset": names,
            "tasks": [int(group["task_id"].nunique()) for group in groups],
            "trajectories": [len(group) for group in groups],
            "solve_rate": [float(group["solved"].mean()) for group in groups],
        },
        columns=list(SUBSET_COLUMNS),
    )


def _identity(record: ScoredTrajectory, row: int) -> dict[str, Any]:
    trajectory = record.trajectory
    return {
        "row": row,
        "trajectory_id": trajectory.id,
        "task_id": trajectory.task_id,
        "subset": trajectory.subset,
        "attempt": trajectory.attempt,
    }


def _number(score: float | None) -> float:
    return math.nan if score is None else score


def _revision(value: Revision) -> str:
    return f"{value.name}@{value.revision}"


def _place(source: str, index: int) -> str:
    return f"{source}:{index + 2}"  # line 1 is the header

"""Scored trajectories as flat pandas tables: one row a step, one a trajectory, one a group.

Great Expectations judges columns of single values, so lists (token ids, log-probabilities) become counts
and extremes here. NaN means that a value does not apply or is not known: the success of a last step, `solved` of an
answer without a verdict, the log-probability of a step that was not sampled. `*_COLUMNS` say what each column
means; the tables hold exactly these, in order.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import pandas as pd

from steptool.core.types import ScoredTrajectory, StopReason, content_hash

ROW = {
    "row": "number of the row, from 0",
    "source": "file and line of the record",
    "trajectory_id": "content hash",
    "task_id": "",
}

STEP_COLUMNS = ROW | {
    "step": "from 0",
    "is_last": "the last step carries `solved`, the others success and contribution",
    "is_readable": "the action could be read",
    "success": "in [0, 1]; NaN in the last step",
    "contribution": "in [0, 1]; NaN in the last step",
    "solved": "in [0, 1]; NaN before the last step",
    "reward": "of this step; NaN where it is missing",
    "n_context_tokens": "new tokens before the action",
    "n_action_tokens": "sampled tokens",
    "n_bad_logprobs": "log-probabilities of sampled tokens that are NaN or infinite",
    "logprob_max": "largest finite log-probability, in nats; NaN without any",
}

TRAJECTORY_COLUMNS = ROW | {
    "attempt": "",
    "is_known": "an earlier row has the same trajectory_id, or is another branch of its search",
    "broken": "1 if an engine or world fault cut it short, else 0",
    "finished": "it ended with an answer",
    "n_steps": "",
    "max_calls": "most steps that it was allowed; NaN where it was not sampled",
    "n_tokens": "context and action tokens",
    "max_tokens": "most tokens that it was allowed; NaN where it was not sampled",
    "solved": "in [0, 1]",
    "n_rewards": "rewards given for it; one a step",
    "discounted_return": "sum of gamma^t r_t",
    "return_error": "distance of discounted_return from its closed form; NaN where the reward form has none",
    "policy": "name and revision",
    "conditions": "hash of what it was sampled under",
    "annotator": "name and revision",
}

GROUP_COLUMNS = {"row": "number of the row, from 0", "group": "", "trajectories": "of its tasks"}


def step_table(
    scored: Sequence[ScoredTrajectory], rewards: Sequence[Sequence[float]], source: str = "scored"
) -> pd.DataFrame:
    """One row a step. `source` is the file that `scored` was read from, whose first record is in line 2."""
    return _table(_steps(scored, rewards, source), STEP_COLUMNS)


def _steps(
    scored: Sequence[ScoredTrajectory], rewards: Sequence[Sequence[float]], source: str
) -> Iterator[dict[str, Any]]:
    rows = count()
    for index, (record, earned) in enumerate(zip(scored, rewards, strict=True)):
        trajectory, identity = record.trajectory, _identity(record, source, index)
        last = len(trajectory.steps) - 1
        for number, (step, judgement) in enumerate(zip(trajectory.steps, record.judgements, strict=True)):
            finite = [value for value in step.action_logprobs if math.isfinite(value)]
            yield identity | {
                "row": next(rows),
                "step": number,
                "is_last": number == last,
                "is_readable": step.action.unreadable is None,
                "success": _number(judgement.success),
                "contribution": _number(judgement.contribution),
                "solved": _number(judgement.solved),
                "reward": earned[number] if number < len(earned) else math.nan,
                "n_context_tokens": len(step.context_ids),
                "n_action_tokens": len(step.action_ids),
                "n_bad_logprobs": len(step.action_logprobs) - len(finite),
                "logprob_max": max(finite, default=math.nan),
            }


def trajectory_table(
    scored: Sequence[ScoredTrajectory],
    rewards: Sequence[Sequence[float]],
    source: str = "scored",
    *,
    gamma: float = 1.0,
    expected_returns: Sequence[float] | None = None,
) -> pd.DataFrame:
    """One row a trajectory. `expected_returns` are the discounted returns in closed form, to compare the rewards
    with."""
    rows = _trajectories(scored, rewards, source, gamma, expected_returns)
    return _table(rows, TRAJECTORY_COLUMNS)


def _trajectories(
    scored: Sequence[ScoredTrajectory],
    rewards: Sequence[Sequence[float]],
    source: str,
    gamma: float,
    expected_returns: Sequence[float] | None,
) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for index, (record, earned) in enumerate(zip(scored, rewards, strict=True)):
        trajectory = record.trajectory
        allowed = trajectory.conditions.sampling if trajectory.conditions else None
        discounted = sum(gamma**step * reward for step, reward in enumerate(earned))
        expected = expected_returns[index] if expected_returns is not None else math.nan
        yield _identity(record, source, index) | {
            "row": index,
            "attempt": trajectory.attempt,
            "is_known": trajectory.id in seen or trajectory.search in seen,
            "broken": float(trajectory.stop_reason.broken),
            "finished": trajectory.stop_reason is StopReason.finished,
            "n_steps": len(trajectory.steps),
            "max_calls": allowed.max_calls if allowed else math.nan,
            "n_tokens": len(trajectory.token_ids),
            "max_tokens": allowed.max_tokens if allowed else math.nan,
            "solved": _number(record.solved),
            "n_rewards": len(earned),
            "discounted_return": float(discounted),
            "return_error": abs(discounted - expected),
            "policy": str(trajectory.policy),
            "conditions": content_hash(trajectory.conditions and trajectory.conditions.model_dump(mode="json")),
            "annotator": str(record.annotator),
        }
        seen |= {trajectory.id, trajectory.search or trajectory.id}


def _table(rows: Iterable[dict[str, Any]], names: Iterable[str]) -> pd.DataFrame:
    """Filled column by column: a list of all rows would take more memory than what they are made of."""
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for row in rows:
        for name, column in columns.items():
            column.append(row[name])
    return pd.DataFrame(columns)


def group_table(trajectories: pd.DataFrame, groups: Mapping[str, str]) -> pd.DataFrame:
    """One row for each group of `groups`, which holds the group of every task by its id."""
    counts = Counter(groups.get(task) for task in trajectories["task_id"])
    names = sorted(set(groups.values()))
    return pd.DataFrame(
        {"row": range(len(names)), "group": names, "trajectories": [counts[name] for name in names]},
        columns=list(GROUP_COLUMNS),
    )


def _identity(record: ScoredTrajectory, source: str, index: int) -> dict[str, Any]:
    trajectory = record.trajectory
    return {
        "source": f"{source}:{index + 2}",  # line 1 is the header
        "trajectory_id": trajectory.id,
        "task_id": trajectory.task_id,
    }


def _number(score: float | None) -> float:
    return math.nan if score is None else score

"""Lists become counts and extremes.

step  is_last  success  contribution  solved  reward  n_action_tokens  logprob_max
0     no       1        1                     1.0     3                -0.1
1     yes                             1       1.0     3                -0.1
"""

from __future__ import annotations

import math

import pytest

from steptool.checks.table import STEP_COLUMNS, TRAJECTORY_COLUMNS, group_table, step_table, trajectory_table
from steptool.core.types import ScoredTrajectory


def test_step_rows(healthy: list[ScoredTrajectory]) -> None:
    table = step_table(healthy[2:3], [[1.0, 1.0]], "a.jsonl")
    assert list(table.columns) == list(STEP_COLUMNS)
    first, last = table.iloc[0], table.iloc[1]
    assert (first.success, first.contribution, first.reward, first.source) == (1, 1, 1, "a.jsonl:2")
    assert math.isnan(first.solved) and math.isnan(last.success)
    assert (bool(first.is_last), bool(last.is_last), last.solved) == (False, True, 1)
    assert (first.n_context_tokens, first.n_action_tokens, first.logprob_max) == (2, 3, -0.1)


def test_a_missing_reward_is_nan(healthy: list[ScoredTrajectory]) -> None:
    assert math.isnan(step_table(healthy[:1], [[1.0]]).reward[1])


def test_trajectory_rows(healthy: list[ScoredTrajectory]) -> None:
    table = trajectory_table([healthy[2], healthy[2]], [[1.0, 1.0], [0.5, 0.0]], gamma=0.5, expected_returns=[1.5, 0.6])
    assert list(table.columns) == list(TRAJECTORY_COLUMNS)
    assert list(table.is_known) == [False, True]
    assert list(table.discounted_return) == [1.5, 0.5]
    assert list(table.return_error) == pytest.approx([0.0, 0.1])
    assert list(table.n_tokens) == [10, 10]
    assert list(table.policy) == ["sft 1", "sft 1"]


def test_group_rows_hold_the_missing_ones(healthy: list[ScoredTrajectory]) -> None:
    groups = {f"t{task}": "G1_tool" if task < 4 else "mine" for task in range(6)} | {"t6": "G3_instruction"}
    table = group_table(trajectory_table(healthy, [[0.0, 0.0]] * 12), groups)
    assert list(table.group) == ["G1_tool", "G3_instruction", "mine"]
    assert list(table.trajectories) == [8, 0, 4]


def test_what_was_not_sampled_has_no_budget(healthy: list[ScoredTrajectory]) -> None:
    demonstration = healthy[0].model_copy(
        update={"trajectory": healthy[0].trajectory.model_copy(update={"conditions": None})}
    )
    table = trajectory_table([demonstration], [[0.0, 0.0]])
    assert math.isnan(table.max_calls[0]) and math.isnan(table.max_tokens[0])


def test_no_records_give_empty_tables_with_all_columns() -> None:
    assert list(step_table([], []).columns) == list(STEP_COLUMNS)
    assert list(trajectory_table([], []).columns) == list(TRAJECTORY_COLUMNS)
    assert group_table(trajectory_table([], []), {}).empty

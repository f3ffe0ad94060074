"""Lists become counts and extremes.

step  is_last  success  contribution  solved  reward  n_logprobs  logprob_max  logprob_mean
0     no       1        1                     1.0     3           -0.1         -0.2
1     yes                             1       1.0     3           -0.1         -0.2
"""

from __future__ import annotations

import math

import pytest

from steptool.checks.table import STEP_COLUMNS, TRAJECTORY_COLUMNS, step_table, subset_table, trajectory_table
from steptool.core.types import ScoredTrajectory


def test_step_rows(healthy: list[ScoredTrajectory]) -> None:
    table = step_table(healthy[2:3], [[1.0, 1.0]], "a.jsonl")
    assert list(table.columns) == list(STEP_COLUMNS)
    first, last = table.iloc[0], table.iloc[1]
    assert (first.success, first.contribution, first.reward, first.source) == (1, 1, 1, "a.jsonl:2")
    assert math.isnan(first.solved) and math.isnan(last.success)
    assert (bool(first.is_last), bool(last.is_last), last.solved, last.tool) == (False, True, 1, "Finish")
    assert (first.n_context_tokens, first.n_action_tokens, first.n_logprobs) == (2, 3, 3)
    assert (first.logprob_max, first.logprob_mean) == (-0.1, pytest.approx(-0.2))


def test_a_missing_reward_is_nan(healthy: list[ScoredTrajectory]) -> None:
    assert math.isnan(step_table(healthy[:1], [[1.0]]).reward[1])


def test_trajectory_rows(healthy: list[ScoredTrajectory]) -> None:
    table = trajectory_table([healthy[2], healthy[2]], [[1.0, 1.0], [0.5, 0.0]], gamma=0.5, expected_returns=[1.5, 0.6])
    assert list(table.columns) == list(TRAJECTORY_COLUMNS)
    assert list(table.is_copy) == [False, True]
    assert list(table.reward_sum) == [2.0, 0.5]
    assert list(table.discounted_return) == [1.5, 0.5]
    assert list(table.return_error) == pytest.approx([0.0, 0.1])
    assert list(table.n_tokens) == [10, 10]
    assert list(table.policy) == ["sft@1", "sft@1"]


def test_subset_rows_hold_the_missing_ones(healthy: list[ScoredTrajectory]) -> None:
    table = subset_table(trajectory_table(healthy, [[0.0, 0.0]] * 12), ["G3_instruction"])
    assert list(table.subset) == ["G1_instruction", "G2_instruction", "G3_instruction"]
    assert list(table.trajectories) == [6, 6, 0]
    assert list(table.tasks) == [3, 3, 0]
    assert list(table.solve_rate[:2]) == pytest.approx([2 / 3, 2 / 3])
    assert math.isnan(table.solve_rate[2])


def test_no_records_give_empty_tables_with_all_columns() -> None:
    assert list(step_table([], []).columns) == list(STEP_COLUMNS)
    assert subset_table(trajectory_table([], [])).empty

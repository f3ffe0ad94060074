"""The rules against votes on two steps.

step   reply                        rules              votes: success      contribution of 5
get    price 9.99, in the answer    success 1, 1.0     1, 1, 1             5, 5, 5
list   error                        success 0, 0.0     0, 1, 1             0, 5, 5

success: as the majority on the first alone, 1/2; a single vote 5/6
contribution: off by 0 and 2/3, 1/3 on average; a single vote by 0 and (2/3 + 1/3 + 1/3) / 3 = 4/9, 2/9
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steptool.annotators.rules import Rules
from steptool.checks.audit.annotated import RECORDED, compare, summary
from steptool.core.errors import DataError

GET = {
    "name": "get",
    "arguments": '{"id": "bk417"}',
    "response": '{"error": "", "response": {"price": 9.99}}',
    "gpt4_succeed_tool_calling": [1, 1, 1],
    "gpt4_contribution_0_5": [5, 5, 5],
}
LIST = {
    "name": "list",
    "arguments": "{}",
    "response": '{"error": "no such service", "response": ""}',
    "gpt4_succeed_tool_calling": [0, 1, 1],
    "gpt4_contribution_0_5": [0, 5, 5],
}
ATTEMPT = {
    "query": "What does bk417 cost?",
    "steps": [GET, LIST],
    "final": {"name": "Finish", "arguments": '{"final_answer": "It costs 9.99."}'},
}
RULES = Rules(Rules.Config())


def written(folder: Path, *lines: Any) -> Path:
    path = folder / "voted.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_steps_are_compared_with_the_majority_and_with_single_votes(tmp_path: Path) -> None:
    unvoted = {"steps": [{"name": "get", "reward": 0.5}]}
    steps = compare(written(tmp_path, ATTEMPT, unvoted), RULES, RECORDED)
    assert [(step.success, step.contribution) for step in steps] == [(1.0, 1.0), (0.0, 0.0)]
    assert steps[1].voted == pytest.approx((2 / 3, 2 / 3))
    assert summary(steps) == (
        "2 voted steps: success as the majority on 50% of them (a single vote on 83%), "
        "contribution off by 0.33 on average (a single vote by 0.22)"
    )


def test_a_file_without_votes_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no step has votes"):
        compare(written(tmp_path, {"steps": [{"name": "get"}]}), RULES, RECORDED)


def test_a_line_that_is_no_attempt_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="final") as caught:
        compare(written(tmp_path, {key: value for key, value in ATTEMPT.items() if key != "final"}), RULES, RECORDED)
    assert str(caught.value.where).endswith("voted.jsonl:1")

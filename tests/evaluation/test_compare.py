"""Paired comparison, worked by hand.

task        0 1 2 3 4 5 6 7 8 9
baseline    0 0 0 0 0 0 1 1 0 0
candidate   1 1 1 1 1 1 0 1 0 0      won 6, lost 1, tied 3: +5/10
sign test   P(at most 1 or at least 6 of 7) = 2 (1 + 7) / 2^7 = 0.125
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steptool.core.errors import NotComparable
from steptool.core.types import SUBSETS, Conditions, Sampling, Task
from steptool.evaluation.compare import Comparison, compare, paired_difference
from steptool.evaluation.metrics import Evaluation
from steptool.testing import reference, revision
from tests.evaluation.samples import LOOKUP, call, evaluation, finish, references, scored, task

BASELINE = [0, 0, 0, 0, 0, 0, 1, 1, 0, 0]
CANDIDATE = [1, 1, 1, 1, 1, 1, 0, 1, 0, 0]
TASKS = [task(index, SUBSETS[index % 2]) for index in range(10)]


def measured(name: str, verdicts: list[int], tasks: list[Task] = TASKS) -> Evaluation:
    judged = [
        scored(each, [finish("1")], float(solved), policy=name) for each, solved in zip(tasks, verdicts, strict=True)
    ]
    return evaluation(name, judged, tasks)


def against(candidate: Evaluation, baseline: Evaluation) -> Comparison:
    return compare(candidate, baseline, resamples=2_000, confidence=0.95, seed=3)


def test_counts_difference_and_exact_p_value() -> None:
    result = against(measured("r1", CANDIDATE), measured("sft", BASELINE))
    assert (result.won, result.lost, result.tied) == (6, 1, 3)
    assert result.difference == pytest.approx(0.5)
    assert result.p_value == pytest.approx(0.125)
    assert result.win_rate == pytest.approx(0.75)
    assert result.low < result.difference < result.high
    assert (result.candidate, result.baseline) == ("r1", "sft")


def test_groups_hold_their_own_tasks_only() -> None:
    result = against(measured("r1", CANDIDATE), measured("sft", BASELINE))
    assert list(result.groups) == ["G1_instruction", "G1_tool", "I1", "all"]
    assert result.groups["G1_instruction"].difference == pytest.approx(2 / 5)  # 3 won, 1 lost of tasks 0 2 4 6 8
    assert result.groups["G1_tool"].difference == pytest.approx(3 / 5)
    assert result.groups["all"].difference == result.difference


def test_swapping_the_sides_flips_the_sign_and_keeps_the_p_value() -> None:
    one, other = measured("r1", CANDIDATE), measured("sft", BASELINE)
    forth, back = against(one, other), against(other, one)
    assert back.difference == -forth.difference
    assert (back.low, back.high) == (pytest.approx(-forth.high), pytest.approx(-forth.low))
    assert (back.won, back.lost, back.p_value) == (forth.lost, forth.won, forth.p_value)


def test_a_policy_against_itself_is_no_difference() -> None:
    same = against(measured("r1", CANDIDATE), measured("sft", CANDIDATE))
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    assert not same.significant
    assert same.win_rate == 0.5


def test_partial_verdicts_use_the_permutation_test() -> None:
    """Differences +.5 five times: only the two all-alike sign patterns of 2^5 are as extreme, p = 2/32."""
    result = paired_difference(
        np.array([0.5] * 5 + [0.0] * 4), resamples=1_000, confidence=0.95, rng=np.random.default_rng(0)
    )
    assert result.p_value == pytest.approx(2 / 32)
    assert (result.won, result.lost, result.tied) == (5, 0, 4)


def changed(of: Evaluation, **fields: Any) -> Evaluation:
    """With other fields; those of the conditions and of the sampling by their own names."""
    sampling = {name: value for name, value in fields.items() if name in Sampling.model_fields}
    parts = {name: value for name, value in fields.items() if name in Conditions.model_fields}
    own = {name: value for name, value in fields.items() if name in Evaluation.model_fields}
    changed_sampling = of.conditions.sampling.model_copy(update=sampling)
    conditions = of.conditions.model_copy(update={"sampling": changed_sampling, **parts})
    return of.model_copy(update={"conditions": conditions, **own})


OTHERWISE = {
    "world": revision("mini", "other"),
    "format": revision("json_call", "another prompt"),
    "engine": revision("vllm", "another"),
    "dtype": "bfloat16",
    "search": revision("dfsdt"),
    "temperature": 0.7,
    "top_p": 0.9,
    "max_calls": 17,
    "max_step_tokens": 128,
    "max_tokens": 4096,
    "annotator": revision("gpt-4"),
    "attempts": 3,
    "split": "dev",
    "tasks_hash": "0" * 16,
}


def test_the_conditions_below_are_all_that_there_are() -> None:
    conditions = {*Conditions.model_fields, *Sampling.model_fields} - {"sampling"}
    assert OTHERWISE.keys() == conditions | {"annotator", "attempts", "split", "tasks_hash"}


@pytest.mark.parametrize("field", OTHERWISE)
def test_another_condition_is_refused_by_name(field: str) -> None:
    candidate = changed(measured("r1", CANDIDATE), **{field: OTHERWISE[field]})
    with pytest.raises(NotComparable, match=f"\n  {field}: .* against "):
        against(candidate, measured("sft", BASELINE))


def test_a_changed_description_of_a_tool_changes_the_tasks() -> None:
    first, *others = TASKS
    tool = first.tools[0].model_copy(update={"description": "find books"})
    reworded = [first.model_copy(update={"tools": (tool, *first.tools[1:])}), *others]
    with pytest.raises(NotComparable, match=r"tasks_hash: .* their queries, tools or answers are not the same"):
        against(measured("r1", CANDIDATE, reworded), measured("sft", BASELINE))


def test_a_changed_answer_changes_the_tasks() -> None:
    known = references(TASKS)
    known[TASKS[0].id] = known[TASKS[0].id].model_copy(update={"relevant_tools": ()})
    other = measured("r1", CANDIDATE)
    judged = [scored(each, [finish("1")], 0.0, policy="r1") for each in TASKS]
    assert evaluation("r1", judged, TASKS, known=known).tasks_hash != other.tasks_hash


def test_a_task_that_changed_its_group_is_named() -> None:
    moved = [TASKS[0].model_copy(update={"group": "mine"}), *TASKS[1:]]
    with pytest.raises(NotComparable, match="group of task G1_instruction-000: mine against G1_instruction"):
        against(measured("r1", CANDIDATE, moved), measured("sft", BASELINE))


def test_all_differences_are_listed_at_once() -> None:
    fewer = measured("r1", CANDIDATE[:8], TASKS[:8])
    with pytest.raises(NotComparable) as error:
        against(changed(fewer, max_calls=17, world=revision("mini", "b")), measured("sft", BASELINE))
    text = str(error.value)
    assert "max_calls: 17 against 8" in text
    assert "world: mini b against mini 1" in text
    assert "2 tasks only in sft: G1_instruction-008, G1_tool-009" in text
    assert "fix:" in text


def test_comparison_survives_its_json() -> None:
    result = against(measured("r1", CANDIDATE), measured("sft", BASELINE))
    assert Comparison.model_validate_json(result.model_dump_json()) == result


@settings(max_examples=50)
@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=30))
def test_difference_lies_in_its_interval_and_counts_add_up(values: list[float]) -> None:
    paired = np.array(values)
    result = paired_difference(paired, resamples=300, confidence=0.99, rng=np.random.default_rng(0))
    assert result.tasks == len(values)
    assert result.low <= result.high
    assert result.low >= -1
    assert result.high <= 1
    assert 0 < result.p_value <= 1
    assert result.difference == pytest.approx(paired.mean())


def test_ten_thousand_resamples_of_three_hundred_tasks_are_quick() -> None:
    start = time.process_time()
    values = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], 300)
    paired_difference(values, resamples=10_000, confidence=0.95, rng=np.random.default_rng(0))
    assert time.process_time() - start < 2


# Tasks without a verdict


def unjudged(name: str, answers: list[str], verdicts: list[float | None]) -> Evaluation:
    """One lookup and an answer at each task, grounded where it is `bk1`."""
    find = call(LOOKUP.name, {"title": "x"}, '{"id":"bk1"}')
    judged = [
        scored(each, [find, finish(answer)], verdict, policy=name)
        for each, answer, verdict in zip(TASKS, answers, verdicts, strict=True)
    ]
    return evaluation(name, judged, TASKS, known={each.id: reference(each) for each in TASKS})


def test_only_tasks_with_a_verdict_under_both_are_compared() -> None:
    """Tasks 0 2 4 of G1_instruction and 1 of G1_tool; task 3 has a verdict under one of them alone."""
    candidate = unjudged("r1", ["x"] * 10, [1, 1, 1, 1, 0, None, None, None, None, None])
    baseline = unjudged("sft", ["x"] * 10, [0, 1, 0, None, 0, None, None, None, None, None])
    result = against(candidate, baseline)
    assert (result.measure, result.tasks, result.won, result.lost, result.tied) == ("solved", 4, 2, 0, 2)
    assert {group: part.tasks for group, part in result.groups.items()} == {
        "G1_instruction": 3, "G1_tool": 1, "I1": 4, "all": 4,
    }  # fmt: skip


def test_grounded_answers_are_compared_where_verdicts_are_missing() -> None:
    candidate = unjudged("r1", ["bk1"] * 6 + ["x"] * 4, [None] * 10)
    baseline = unjudged("sft", ["bk1"] * 2 + ["x"] * 8, [None] * 10)
    result = compare(candidate, baseline, resamples=2_000, confidence=0.95, seed=3, measure="grounded")
    assert (result.measure, result.won, result.lost, result.tied) == ("grounded", 4, 0, 6)
    assert Comparison.model_validate_json(result.model_dump_json()) == result
    with pytest.raises(NotComparable, match="no task has a verdict under both r1 and sft"):
        against(candidate, baseline)

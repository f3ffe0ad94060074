"""Tasks that are solved or failed together, worked by hand.

cluster     a  a  a  b  b  c  d
candidate   1  1  1  1  0  0  1
baseline    0  0  0  0  0  1  1      won 4, lost 1, tied 2 of 7 tasks
sums        3        1     -1 0      three clusters differ, of which two are won
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steptool.core.types import Reference
from steptool.evaluation.bootstrap import bootstrap_mean, bootstrap_ratios, sums
from steptool.evaluation.compare import Comparison, compare, paired_difference
from steptool.evaluation.metrics import Evaluation, tasks_hash
from steptool.report.wording import comparison_text
from tests.evaluation.samples import evaluation, finish, references, scored, task

CLUSTERS = "aaabbcd"
CANDIDATE, BASELINE = [1, 1, 1, 1, 0, 0, 1], [0, 0, 0, 0, 0, 1, 1]
TASKS = [task(index) for index in range(7)]
DRAWS: dict[str, Any] = {"resamples": 2_000, "confidence": 0.95}


def clustered(names: str = CLUSTERS) -> dict[str, Reference]:
    """The references of TASKS, each with a cluster; a space names none."""
    known = references(TASKS)
    return {
        each.id: known[each.id].model_copy(update={"cluster": name.strip()})
        for each, name in zip(TASKS, names, strict=True)
    }


def measured(name: str, verdicts: list[int], known: dict[str, Reference]) -> Evaluation:
    judged = [
        scored(each, [finish("1")], float(solved), policy=name) for each, solved in zip(TASKS, verdicts, strict=True)
    ]
    return evaluation(name, judged, TASKS, known=known)


def against(known: dict[str, Reference]) -> Comparison:
    return compare(measured("new", CANDIDATE, known), measured("old", BASELINE, known), seed=3, **DRAWS)


def test_values_are_summed_over_each_cluster_in_the_order_of_its_first_task() -> None:
    values = np.array([[1.0, 2, 3, 4, 5, 6, 7], [1.0] * 7])
    assert sums(values, "bbacaca").tolist() == [[3, 15, 10], [2, 3, 2]]


def test_the_differences_of_clusters_are_tested_and_those_of_tasks_counted() -> None:
    found = against(clustered())
    assert (found.won, found.lost, found.tied, found.clusters) == (4, 1, 2, 4)
    assert found.difference == pytest.approx(3 / 7)
    # Signs of 3, 1 and -1 are flipped: 8 sums, of which 3 and more, or -3 and less, are 6.
    assert found.p_value == pytest.approx(6 / 8)
    assert against(references(TASKS)).p_value == pytest.approx(0.375)  # 4 of 5 by the sign test


def test_an_interval_draws_whole_clusters() -> None:
    """Of a and b, one with three tasks that are won and one with a task that is lost: 3 of 3, 2 of 4, or -1 of 1."""
    values, of = np.array([1.0, 1, 1, -1]), "aaab"
    mean, low, high = bootstrap_mean(values, clusters=of, rng=np.random.default_rng(0), **DRAWS)
    assert (mean, low, high) == (0.5, -1.0, 1.0)
    rows = bootstrap_ratios(
        np.array([values, values]), np.ones((2, 4)), clusters=of, rng=np.random.default_rng(0), **DRAWS
    )
    assert {(row.value, row.low, row.high) for row in rows} == {(0.5, -1.0, 1.0)}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=12), st.integers(2, 5))
def test_copies_of_a_task_in_one_cluster_say_no_more_than_the_task(values: list[float], copies: int) -> None:
    once = paired_difference(np.array(values), rng=np.random.default_rng(1), **DRAWS)
    of = np.repeat(np.arange(len(values)), copies).tolist()
    often = paired_difference(np.repeat(values, copies), rng=np.random.default_rng(1), clusters=of, **DRAWS)
    assert (often.low, often.high, often.p_value) == pytest.approx((once.low, once.high, once.p_value))
    assert (often.tasks, often.clusters) == (len(values) * copies, len(values))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=12))
def test_clusters_of_one_task_change_nothing(values: list[float]) -> None:
    plain, own = (
        paired_difference(np.array(values), rng=np.random.default_rng(2), clusters=of, **DRAWS)
        for of in (None, list("abcdefghijkl"[: len(values)]))
    )
    assert own == plain
    assert own.clusters is None


def test_thirds_that_cancel_are_no_difference() -> None:
    third = 1 / 3
    paired = np.array([third, third, -third - third, 1.0, 0.1 + 0.2 - 0.3])
    assert paired_difference(paired, clusters="aaabc", rng=np.random.default_rng(0), **DRAWS).p_value == 1.0


def all_flips(thirds: list[int]) -> float:
    """The two-sided p-value over all sign flips, in whole numbers."""
    found = [sum(flipped) for flipped in product(*((each, -each) for each in thirds if each))]
    above, below = (sum(sign * each >= sign * sum(thirds) for each in found) for sign in (1, -1))
    return min(1.0, 2 * min(above, below) / len(found))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=2, max_size=9))
def test_flips_that_give_the_same_sum_of_thirds_are_ties(thirds: list[int]) -> None:
    """Three attempts at a task: two thirds are twice one third, however a computer adds them up."""
    paired = np.array([each / 3 for each in thirds])
    found = paired_difference(paired, rng=np.random.default_rng(0), **DRAWS)
    assert found.p_value == pytest.approx(all_flips(thirds))


def test_an_evaluation_draws_the_clusters_that_the_references_name() -> None:
    solved = [1, 1, 1, 1, 0, 0, 0]
    apart, together = measured("new", solved, references(TASKS)), measured("new", solved, clustered("aaaabbb"))
    assert (apart.cluster_of, together.clusters([TASKS[0].id, TASKS[6].id])) == ({}, [("a", ""), ("b", "")])
    narrow, wide = apart.metrics["all"]["pass_rate"], together.metrics["all"]["pass_rate"]
    assert (wide.value, wide.low, wide.high) == (narrow.value, 0, 1)
    assert narrow.low == pytest.approx(1 / 7)  # tasks alone: no solved one is drawn in 0.3 % of the resamples
    assert Evaluation.model_validate_json(together.model_dump_json()) == together


def test_a_cluster_is_no_task_of_the_same_name() -> None:
    names = {each.id: each for each in TASKS}
    known = references(TASKS)
    known[TASKS[0].id] = known[TASKS[0].id].model_copy(update={"cluster": TASKS[1].id})
    found = measured("new", CANDIDATE, known)
    assert len(set(found.clusters(list(names)))) == len(TASKS)


def test_a_cluster_of_an_unknown_task_is_refused() -> None:
    found = measured("new", CANDIDATE, clustered())
    with pytest.raises(ValueError, match="cluster_of lists t9, which is none of the tasks"):
        Evaluation.model_validate({**found.model_dump(), "cluster_of": {"t9": "a"}})


def test_another_cluster_is_another_task_and_none_is_written_as_before() -> None:
    known = references(TASKS)
    assert "cluster" not in known[TASKS[0].id].model_dump(mode="json")
    assert tasks_hash(TASKS, known) == tasks_hash(TASKS, clustered(" " * 7)) != tasks_hash(TASKS, clustered())


def test_what_was_drawn_is_said() -> None:
    assert comparison_text(against(clustered())).endswith("4 won, 1 lost, 2 tied (7 tasks of 4 clusters)")
    assert comparison_text(against(references(TASKS))).endswith("4 won, 1 lost, 2 tied")
    assert against(clustered("a" * 7)).drawn == "7 tasks of 1 cluster"

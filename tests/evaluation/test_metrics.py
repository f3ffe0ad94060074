"""Metrics of an evaluation, against numbers worked by hand.

task            attempt 0                 attempt 1            solved  finished
G1_tool-0       find, details, Finish 1   Finish 0              0.5     1.0
G1_tool-1       find, give up             (missing)             0.0     0.0
G2_category-0   (missing)                 (missing)             0.0     0.0
"""

from __future__ import annotations

import json
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steptool import testing
from steptool.core.errors import DataError, StepToolError
from steptool.core.types import SUBSETS, AnswerCheck, Reference, ScoredTrajectory, Step, StopReason, Task
from steptool.evaluation.bootstrap import bootstrap_ratios
from steptool.evaluation.built_in import METRICS
from steptool.evaluation.metrics import (
    ALL,
    Evaluation,
    broken_share,
    group_tasks,
    primary_measure,
    refuse_unless_measurable,
)
from steptool.testing import conditions, reference
from tests.evaluation.samples import DETAILS, LOOKUP, call, evaluation, finish, give_up, references, scored, task

FIND = call(LOOKUP.name, {"title": "x"}, '{"id":"bk1"}')
FIND_FAILS = call(LOOKUP.name, {"title": "x"}, "retry", "rate_limit")
LOOK = call(DETAILS.name, {"id": "bk1"}, '{"year":1970}')
TASKS = [task(0), task(1), task(0, "G2_category")]
JUDGED = [
    scored(TASKS[0], [FIND, LOOK, finish("1970")], 1.0, attempt=0),
    scored(TASKS[0], [finish("1")], 0.0, attempt=1),
    scored(TASKS[1], [FIND_FAILS, give_up()], 0.0, attempt=0),
]


def value(result: Evaluation, metric: str, group: str = ALL) -> float | None:
    return result.metrics[group][metric].value


@pytest.fixture
def result() -> Evaluation:
    return evaluation("sft", JUDGED, TASKS, attempts=2)


def test_rates_divide_by_all_tasks_and_all_attempts(result: Evaluation) -> None:
    assert result.solved == {TASKS[0].id: 0.5, TASKS[1].id: 0.0, TASKS[2].id: 0.0}
    assert value(result, "pass_rate") == pytest.approx(0.5 / 3)
    assert value(result, "finish_rate") == pytest.approx(1 / 3)
    # relevant tools called: (1 + 0) / 2 of task 0, (1/2 + 0) / 2 of task 1, 0 of task 2
    assert value(result, "tool_recall") == pytest.approx((0.5 + 0.25 + 0) / 3)


def test_conditional_metrics_divide_by_what_was_there(result: Evaluation) -> None:
    assert value(result, "pass_rate_finished") == pytest.approx(1 / 2)  # of 2 finished attempts
    assert value(result, "calls_per_task") == pytest.approx((3 + 1 + 2) / 3)  # of 3 attempts
    assert value(result, "tokens_per_task") == pytest.approx(18 * 6 / 3)
    assert value(result, "call_success") == pytest.approx(2 / 3)  # find, look, not the failed find


def test_pass_rate_is_finish_rate_times_pass_rate_of_the_finished(result: Evaluation) -> None:
    finished, conditional = value(result, "finish_rate"), value(result, "pass_rate_finished")
    assert finished is not None
    assert conditional is not None
    assert value(result, "pass_rate") == pytest.approx(finished * conditional)


def test_rows_are_groups_then_roll_ups_then_all(result: Evaluation) -> None:
    assert list(result.metrics) == ["G1_tool", "G2_category", "I1", "I2", ALL]
    assert value(result, "pass_rate", "I1") == pytest.approx(0.25)
    assert value(result, "pass_rate", "I2") == 0.0
    assert value(result, "calls_per_task", "I2") is None  # nothing was tried there


def test_all_six_subsets_roll_up_in_the_order_of_the_tables() -> None:
    groups = group_tasks({subset: subset for subset in reversed(SUBSETS)})
    assert list(groups) == [*SUBSETS, "I1", "I2", "I3", ALL]
    assert [len(groups[name]) for name in ("I1", "I2", "I3", ALL)] == [3, 2, 1, 6]


def test_a_group_of_the_users_own_is_kept_beside_the_six() -> None:
    assert list(group_tasks({"a": "mine", "b": "G1_tool"})) == ["G1_tool", "mine", "I1", ALL]


def test_no_trajectories_at_all_is_a_pass_rate_of_zero() -> None:
    result = evaluation("sft", [], TASKS)
    assert result.pass_rate == 0
    assert result.finish_rate == 0
    assert value(result, "pass_rate_finished") is None


def test_evaluation_survives_its_json(result: Evaluation) -> None:
    assert Evaluation.model_validate_json(result.model_dump_json()) == result


def test_tables_have_their_order_also_where_a_file_was_sorted() -> None:
    groups = ("zoo", "bar", "G1_tool")
    tasks = [task.model_copy(update={"group": group}) for task, group in zip(TASKS, groups, strict=True)]
    written = json.dumps(evaluation("sft", [], tasks).model_dump(mode="json"), sort_keys=True)
    read = Evaluation.model_validate_json(written)
    assert list(read.metrics) == ["G1_tool", "bar", "zoo", "I1", ALL]
    assert list(read.measures) == list(METRICS)


def test_summary_is_flat_and_holds_no_missing_numbers(result: Evaluation) -> None:
    summary = result.summary()
    assert summary["pass_rate"] == result.pass_rate
    assert summary["pass_rate_I1"] == pytest.approx(0.25)
    assert all(isinstance(number, float) for number in summary.values())


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (scored(task(9), [finish("1")], 0.0), "outside the evaluated set"),
        (scored(TASKS[0], [finish("1")], 0.0, policy="r1"), "was made by"),
        (scored(TASKS[0], [finish("1")], 0.0, attempt=2), "attempt 2 of 2"),
        (JUDGED[0], "repeats attempt 0"),
        (
            scored(TASKS[2], [finish("1")], 0.0, under=conditions(temperature=0.0, max_calls=17)),
            "under other conditions: max_calls: 17 against 8",
        ),
        (scored(TASKS[2], [finish("1")], 0.0, under=conditions(temperature=0.0, format="react")), "format: react 1"),
        (scored(TASKS[2], [finish("1")], 0.0, under=None), "was not sampled here"),
        (scored(TASKS[2], [FIND] * 9, 0.0), "9 actions against max_calls 8"),
        (
            testing.scored(scored(TASKS[2], [finish("1")], 0.0).trajectory, annotator="gpt-4"),
            "was judged by gpt-4 1, not rules 1",
        ),
    ],
)
def test_refuses_trajectories_that_do_not_belong(record: ScoredTrajectory, says: str) -> None:
    with pytest.raises(DataError, match="trajectory") as error:
        evaluation("sft", [*JUDGED, record], TASKS, attempts=2)
    assert says in str(error.value)


def test_same_seed_gives_same_intervals_whatever_the_order_of_trajectories() -> None:
    assert evaluation("sft", JUDGED, TASKS, attempts=2) == evaluation("sft", JUDGED[::-1], TASKS, attempts=2)


def test_tampered_evaluation_is_rejected(result: Evaluation) -> None:
    data = result.model_dump(mode="json")
    del data["solved"][TASKS[0].id]
    with pytest.raises(ValueError, match="list different tasks"):
        Evaluation.model_validate(data)


def test_interval_of_a_fair_coin_is_the_binomial_one() -> None:
    """200 of 400 tasks: standard error sqrt(.25 / 400) = .025, so 95 % is .5 ± .049."""
    half = np.array([[1.0, 0.0] * 200])
    estimate = bootstrap_ratios(
        half, np.ones_like(half), resamples=10_000, confidence=0.95, rng=np.random.default_rng(1)
    )[0]
    assert estimate.value == 0.5
    assert estimate.low == pytest.approx(0.451, abs=0.004)
    assert estimate.high == pytest.approx(0.549, abs=0.004)


def test_ratio_interval_skips_resamples_without_a_denominator() -> None:
    estimate = bootstrap_ratios(
        np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]]), resamples=200, confidence=0.9, rng=np.random.default_rng(0)
    )[0]
    assert (estimate.value, estimate.low, estimate.high) == (1.0, 1.0, 1.0)


@settings(max_examples=40)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, None]), min_size=1, max_size=12))
def test_pass_rate_counts_a_missing_trajectory_as_unsolved(verdicts: list[float | None]) -> None:
    tasks = [task(index) for index in range(len(verdicts))]
    judged = [
        scored(each, [finish("1")], verdict)
        for each, verdict in zip(tasks, verdicts, strict=True)
        if verdict is not None
    ]
    result = evaluation("sft", judged, tasks)
    assert result.pass_rate == pytest.approx(sum(verdict or 0 for verdict in verdicts) / len(verdicts))


def ended(of: Task, stop: StopReason, attempt: int = 0) -> ScoredTrajectory:
    if stop is StopReason.finished:
        return scored(of, [finish("x")], 1.0, attempt=attempt)
    return scored(of, [], 0.0, stop=stop, attempt=attempt)


@pytest.mark.parametrize(
    ("stops", "broken"),
    [
        ("ffff", 0.0), ("fgcb", 0.0), ("eeee", 1.0), ("wwww", 1.0), ("efff", 0.25), ("ewgf", 0.5),
        ("fff-", 0.25), ("----", 1.0),
    ],
)  # fmt: skip
def test_what_was_not_measured_is_counted_apart(stops: str, broken: float) -> None:
    """Of four tasks: finished, gave up, out of calls, out of tokens; engine or world broke; no attempt."""
    reasons = {
        "f": StopReason.finished, "c": StopReason.call_budget, "b": StopReason.token_budget,
        "e": StopReason.engine_error, "w": StopReason.world_error,
    }  # fmt: skip
    tasks = [task(index) for index in range(4)]
    judged = [
        scored(of, [give_up()], 0.0) if stop == "g" else ended(of, reasons[stop])
        for of, stop in zip(tasks, stops, strict=True)
        if stop != "-"
    ]
    made = evaluation("sft", judged, tasks)
    assert made.broken == made.summary()["broken"] == broken
    assert Evaluation.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize("attempts", [3, 7, 50, 100, 300])
def test_a_share_of_lost_attempts_that_is_allowed_is_not_above_it(attempts: int) -> None:
    """6 of 300 are 0.02; 1 - 294/300 is 0.020000000000000018, which is above a limit of 0.02."""
    fault, whole = ended(task(0), StopReason.engine_error).trajectory, ended(task(0), StopReason.finished).trajectory
    for lost in range(attempts + 1):
        assert broken_share([fault] * lost + [whole] * (attempts - lost), attempts) == lost / attempts


@pytest.mark.parametrize("wrong", [nan, inf, -inf, -0.1, 1.1, "0.5", True, None])
@pytest.mark.parametrize("place", ["pass_rate", "finish_rate", "solved", "broken", "low"])
def test_a_rate_that_is_none_can_neither_be_built_nor_read(wrong: Any, place: str) -> None:
    tasks = [task(0)]
    record = evaluation("sft", [ended(tasks[0], StopReason.finished)], tasks).model_dump()
    whole = record["metrics"]["all"]
    if place == "solved":
        record["solved"][tasks[0].id] = wrong
    elif place == "broken":
        record["broken"] = wrong
    elif wrong is None and place == "low":
        del whole["pass_rate"]
    else:
        whole["pass_rate" if place == "low" else place]["low" if place == "low" else "value"] = wrong
    with pytest.raises(ValueError, match="Evaluation"):
        Evaluation.model_validate(record)
    with pytest.raises(ValueError, match="Evaluation"):
        Evaluation.model_validate_json(json.dumps(record))


@pytest.mark.parametrize(
    ("tasks", "found"),
    [
        ([], "holds no tasks"),
        ([task(0), task(1), task(0)], "holds task G1_tool-000 2 times"),
        ([task(0, "all")], "the group 'all'"),
        ([task(0), task(1, "I2")], "the group 'I2'"),
    ],
)
def test_tasks_that_nothing_can_be_measured_on_are_refused(tasks: list[Task], found: str) -> None:
    with pytest.raises(DataError, match=found) as refused:
        refuse_unless_measurable(tasks, references(tasks), where="test.jsonl")
    assert "test.jsonl" in str(refused.value)


@pytest.mark.parametrize("known", [{}, {task(0).id: reference(task(0), 1)}])
def test_a_task_without_a_reference_is_refused(known: dict[str, Reference]) -> None:
    with pytest.raises(DataError, match=f"{2 - len(known)} of 2 tasks have no reference"):
        refuse_unless_measurable([task(0), task(1)], known, where="test.jsonl")


def test_tasks_of_any_kind_of_check_and_of_none_are_measured() -> None:
    tasks = [task(0), task(1), task(2), task(3)]
    known = {of.id: reference(of, answer) for of, answer in zip(tasks, ["x", ["x"], None, None], strict=True)}
    known[task(3).id] = Reference(task_id=task(3).id, answer_check=AnswerCheck(kind="judge"))
    refuse_unless_measurable(tasks, known, where="test.jsonl")


# Tasks without a verdict


UNCHECKED = {of.id: reference(of) for of in TASKS}


def test_an_attempt_without_a_verdict_counts_for_no_pass_rate() -> None:
    """Task 0: solved, and not judged. Task 1: nobody can tell. Task 2: not solved. 1/2, not 1/3."""
    judged = [
        scored(TASKS[0], [finish("1")], 1.0),
        scored(TASKS[0], [finish("1")], None, attempt=1),
        scored(TASKS[1], [finish("1")], None),
        scored(TASKS[2], [finish("1")], 0.0),
    ]
    made = evaluation("sft", judged, TASKS, attempts=2, known=UNCHECKED)
    assert made.solved == {TASKS[0].id: 1.0, TASKS[1].id: None, TASKS[2].id: 0.0}
    assert (made.pass_rate, made.verdicts, made.summary()["tasks_with_verdict"]) == (0.5, 2, 2.0)
    assert value(made, "pass_rate_finished") == pytest.approx(1 / 2)
    assert value(made, "finish_rate") == pytest.approx(4 / 6)
    assert Evaluation.model_validate_json(made.model_dump_json()) == made


def test_without_any_verdict_there_is_no_pass_rate_and_everything_else() -> None:
    judged = [
        scored(TASKS[0], [FIND, LOOK, finish("1970")], None),
        scored(TASKS[1], [FIND_FAILS, give_up()], None),
        scored(TASKS[2], [], None, stop=StopReason.world_error),
    ]
    made = evaluation("sft", judged, TASKS, known=UNCHECKED)
    assert (made.pass_rate, made.verdicts) == (None, 0)
    assert {"pass_rate", "pass_rate_I1", "pass_rate_finished"}.isdisjoint(made.summary())
    assert made.summary()["tasks_with_verdict"] == 0
    assert value(made, "finish_rate") == value(made, "grounded") == pytest.approx(1 / 3)
    assert value(made, "call_success") == pytest.approx(2 / 3)
    assert made.broken == pytest.approx(1 / 3)
    assert Evaluation.model_validate_json(made.model_dump_json()) == made


def test_a_fault_at_a_task_with_a_check_is_unsolved_though_nobody_gave_a_verdict() -> None:
    judged = [scored(TASKS[0], [], None, stop=StopReason.world_error), scored(TASKS[1], [finish("1")], 1.0)]
    made = evaluation("sft", judged, TASKS[:2])
    assert made.solved == {TASKS[0].id: 0.0, TASKS[1].id: 1.0}


@pytest.mark.parametrize(
    ("steps", "is_grounded"),
    [
        ([FIND, LOOK, finish("It appeared in 1970.")], True),
        ([FIND, LOOK, finish("1971")], False),
        ([FIND, finish("bk1")], True),
        ([finish("1970")], False),
        ([FIND, LOOK, give_up()], False),
        ([FIND, LOOK], False),
        ([FIND_FAILS, finish("retry")], False),  # what failed shows nothing
        ([FIND, finish("The Glass Orchard 0")], False),  # words of the query
    ],
)
def test_a_grounded_answer_holds_a_value_that_a_reply_was_first_to_show(steps: list[Step], is_grounded: bool) -> None:
    made = evaluation("sft", [scored(task(0), steps, None)], [task(0)], known=UNCHECKED)
    assert made.grounded == {task(0).id: float(is_grounded)}
    assert value(made, "grounded") == float(is_grounded)


def test_a_missing_attempt_is_not_grounded(result: Evaluation) -> None:
    assert result.grounded == {TASKS[0].id: 0.5, TASKS[1].id: 0.0, TASKS[2].id: 0.0}


@pytest.mark.parametrize(
    ("tasks", "verdicts", "measure"),
    [
        (1, 1, "solved"), (1, 0, "grounded"), (6, 3, "solved"), (6, 2, "grounded"),
        (240, 30, "solved"), (240, 29, "grounded"), (240, 0, "grounded"),
    ],
)  # fmt: skip
def test_policies_are_compared_on_verdicts_where_enough_tasks_have_one(tasks: int, verdicts: int, measure: str) -> None:
    made = [task(index) for index in range(tasks)]
    judged = [scored(of, [finish("1")], 1.0 if index < verdicts else None) for index, of in enumerate(made)]
    result = evaluation("sft", judged, made, known={of.id: reference(of) for of in made})
    assert primary_measure([result]) == measure
    every = evaluation("sft", [scored(of, [finish("1")], 1.0) for of in made], made)
    assert primary_measure([every, result]) == measure, "the tasks that have a verdict under both count"


# Metrics of a project


class Metric:
    """What `gives` returns for an attempt, or raises."""

    describes = "made up"

    def __init__(self, gives: Any, *, is_rate: bool = False) -> None:
        self.gives, self.is_rate = gives, is_rate

    def fraction(self, scored: ScoredTrajectory, task: Task, reference: Reference) -> Any:
        if isinstance(self.gives, Exception):
            raise self.gives
        return self.gives(scored, task, reference) if callable(self.gives) else self.gives


def test_a_metric_of_the_project_is_measured_beside_the_others() -> None:
    """Failed calls an attempt: 0, 0 and 1 of three that are there; the missing attempts are left out."""
    failed = Metric(lambda scored, task, reference: (sum(j.success == 0 for j in scored.judgements), 1))
    made = evaluation("sft", JUDGED, TASKS, attempts=2, more={"failed_calls": failed})
    assert value(made, "failed_calls") == pytest.approx(1 / 3)
    assert value(made, "failed_calls", "I2") is None
    low, high = made.metrics[ALL]["failed_calls"].low, made.metrics[ALL]["failed_calls"].high
    assert low is not None and high is not None and low < 1 / 3 < high
    assert list(made.measures)[-1] == "failed_calls"
    assert made.measures["failed_calls"].model_dump() == {"describes": "made up", "is_rate": False}
    assert made.summary()["failed_calls"] == pytest.approx(1 / 3)
    assert Evaluation.model_validate_json(made.model_dump_json()) == made


def test_a_metric_that_is_no_rate_may_be_below_0() -> None:
    made = evaluation("sft", JUDGED, TASKS, attempts=2, more={"margin": Metric((-3.0, 2.0))})
    assert value(made, "margin") == -1.5


@pytest.mark.parametrize(
    ("metric", "found"),
    [
        (Metric(KeyError("x")), "metric mine raised KeyError: 'x'"),
        (Metric(None), "metric mine raised TypeError"),
        (Metric((nan, 1.0)), "metric mine gave nan of 1.0"),
        (Metric((1.0, inf)), "metric mine gave 1.0 of inf"),
        (Metric((1.0, -1.0)), "metric mine gave 1.0 of -1.0"),
        (Metric((2.0, 1.0), is_rate=True), "metric mine gave 2.0 of 1.0"),
        (Metric((-1.0, 1.0), is_rate=True), "metric mine gave -1.0 of 1.0"),
    ],
)
def test_a_metric_that_gives_no_fraction_is_named(metric: Metric, found: str) -> None:
    with pytest.raises(StepToolError, match=found) as refused:
        evaluation("sft", JUDGED, TASKS, attempts=2, more={"mine": metric})
    assert f"trajectory {JUDGED[0].trajectory.id} of task {TASKS[0].id}" in str(refused.value)

"""Every fault fails exactly its own expectation, on exactly its own rows.

A healthy batch: task 0, attempts 0 and 1, in lines 2 and 3 of the file; task 1 in lines 4 and 5; and so on.
Tasks 0, 3, 6, … are unsolved. Each trajectory has two steps; the rewards have the paper's form.

One run of the suites takes the better part of a second, so many faults share a batch, each in a trajectory
of its own: what fails must be these faults and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest

from steptool.checks.gate import ValidationReport, validate
from steptool.config.settings import ValidateParams
from steptool.core.errors import ValidationFailed
from steptool.core.types import Revision, ScoredTrajectory, StopReason
from steptool.rewards.auto import Auto
from steptool.rewards.costs import Weights
from steptool.rewards.paper import Paper
from steptool.testing import conditions, unreadable

Batch = list[ScoredTrajectory]
MakeBatch = Callable[[int], Batch]
PAPER = Paper(Weights(alpha=0.5, step_cost=0.0, budget_cost=0.0, gamma=0.9))
AUTO = Auto(Auto.Config(gamma=0.9))
GROUPS = {f"t{task}": ("G1_instruction", "G2_instruction")[task % 2] for task in range(20)}
NAN = math.nan


class Off(Paper):
    """Gives other rewards for some records than it should."""

    def __init__(self, instead: dict[int, list[float]]) -> None:
        super().__init__(PAPER.config)
        self.instead = instead
        """By `id` of the record, for copies are equal."""

    def rewards(self, scored: ScoredTrajectory) -> Sequence[float]:
        return self.instead.get(id(scored), super().rewards(scored))


class WithoutClosedForm:
    gamma = 0.9

    def rewards(self, scored: ScoredTrajectory) -> Sequence[float]:
        return [1.0] * len(scored.judgements)


def judge(batch: Batch, form: Any = PAPER, **changes: Any) -> ValidationReport:
    settings: dict[str, Any] = {"previous_solve_rate": 0.6, "groups": GROUPS, "source": "s.jsonl"}
    return validate(batch, form, **settings | {"params": ValidateParams()} | changes)


def failed(report: ValidationReport) -> list[str]:
    assert all(finding.fix for finding in report.findings)
    return [finding.says for finding in report.failed]


def edit(record: ScoredTrajectory, step: int | None = None, **fields: Any) -> ScoredTrajectory:
    """A copy with fields of the trajectory, or of one step, set past every check that the types make."""
    trajectory = record.trajectory
    if step is not None:
        steps = list(trajectory.steps)
        steps[step] = steps[step].model_copy(update=fields)
        fields = {"steps": tuple(steps)}
    return record.model_copy(update={"trajectory": trajectory.model_copy(update=fields)})


def rejudge(record: ScoredTrajectory, step: int, **fields: Any) -> ScoredTrajectory:
    judgements = list(record.judgements)
    judgements[step] = judgements[step].model_copy(update={"scores": judgements[step].scores | fields})
    return record.model_copy(update={"judgements": tuple(judgements)})


def budget(record: ScoredTrajectory, **fields: int) -> ScoredTrajectory:
    return edit(record, conditions=conditions(**fields))


def empty(record: ScoredTrajectory, stop: StopReason) -> ScoredTrajectory:
    return edit(record, steps=(), stop_reason=stop).model_copy(update={"judgements": ()})


# Whole batches -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def passing(batch: MakeBatch) -> ValidationReport:
    return judge(batch(6))


def test_a_healthy_batch_passes_every_expectation(passing: ValidationReport) -> None:
    assert failed(passing) == []
    assert (passing.trajectories, passing.tasks, passing.steps) == (12, 6, 24)
    assert passing.solve_rate == pytest.approx(2 / 3)
    assert passing.mean_return == pytest.approx((8 * (1.0 + 0.9) + 4 * 0.5) / 12)
    assert [(suite.name, suite.rows) for suite in passing.suites] == [
        ("trajectories", 12),
        ("steps", 24),
        ("groups", 2),
    ]
    assert (passing.verdicts, passing.rewarded) == (12, "12 rewarded by their outcome, 0 by their calls alone")
    passing.raise_if_failed()


def unjudged(batch: Batch, tasks: set[str]) -> Batch:
    """The batch without the verdicts on these tasks."""
    return [rejudge(each, 1, solved=None) if each.trajectory.task_id in tasks else each for each in batch]


SOLVE_RATE = {"At least 2% solve", "At most 99% solve", "The solve rate moved"}


def asked(report: ValidationReport) -> set[str]:
    """Which of SOLVE_RATE the report holds."""
    return {start for start in SOLVE_RATE if any(finding.says.startswith(start) for finding in report.findings)}


def test_a_form_that_needs_verdicts_is_given_no_attempt_without_one(batch: MakeBatch) -> None:
    report = judge(unjudged(batch(6), {"t1"}))
    assert failed(report) == ["Every attempt has a verdict: without one, training might unlearn a right answer."]
    assert "reward: {use: auto}" in report.failed[0].fix
    assert (report.verdicts, report.solve_rate) == (10, pytest.approx(0.6))


def test_without_any_verdict_calls_are_rewarded_and_no_solve_rate_is_asked_about(batch: MakeBatch) -> None:
    report = judge(unjudged(batch(6), set(GROUPS)), AUTO)
    assert failed(report) == []
    assert (report.verdicts, report.solve_rate) == (0, None), "None never becomes 0"
    assert report.rewarded == "0 rewarded by their outcome, 12 by their calls alone"
    assert asked(report) == set()
    # grounded: 8 of 12 attempts have a call that builds, and an answer that stands on it one step later
    assert report.mean_return == pytest.approx(8 / 12 * (0.95 * 0.05 + 0.9 * 0.05) - 0.015 * 1.9)
    assert "add up to their closed form" in " ".join(finding.says for finding in report.findings)


def test_a_solve_rate_is_asked_about_where_half_of_the_attempts_have_a_verdict(batch: MakeBatch) -> None:
    half, fewer = (judge(unjudged(batch(6), tasks), AUTO) for tasks in ({"t0", "t1", "t2"}, {"t1", "t2", "t4", "t5"}))
    assert failed(half) == []
    assert (half.verdicts, half.rewarded) == (6, "6 rewarded by their outcome, 6 by their calls alone")
    assert asked(half) == SOLVE_RATE
    assert (fewer.verdicts, fewer.solve_rate) == (4, 0.0)
    assert failed(fewer) == []
    assert asked(fewer) == set()


def test_the_same_batch_gives_the_same_report(passing: ValidationReport, batch: MakeBatch) -> None:
    assert judge(batch(6)).model_dump_json() == passing.model_dump_json()


def test_rewards_without_a_closed_form_are_held_against_none(batch: MakeBatch) -> None:
    report = judge(batch(6), WithoutClosedForm(), params=ValidateParams(min_return_spread=0.0))
    assert failed(report) == []
    assert "The discounted rewards of a trajectory add up to their closed form." not in {
        f.says for f in report.findings
    }


def test_none_solved(batch: MakeBatch) -> None:
    report = judge([rejudge(record, 1, solved=0.0) for record in batch(6)], previous_solve_rate=None)
    assert failed(report) == ["At least 2% solve their task: without successes there is nothing to learn."]
    assert report.failed[0].observed == "0"


def test_all_solved(batch: MakeBatch) -> None:
    report = judge([rejudge(record, 1, solved=1.0) for record in batch(6)], previous_solve_rate=0.9)
    assert failed(report) == ["At most 99% solve their task: without failures there is nothing to learn."]


def test_returns_without_a_difference(batch: MakeBatch) -> None:
    alike = [rejudge(rejudge(record, 0, contribution=0.5), 1, solved=0.5) for record in batch(6)]
    assert failed(judge(alike)) == ["Returns differ between trajectories: from equal returns nothing can be learned."]


def test_nothing_at_all_fails_without_crashing() -> None:
    report = judge([])
    assert "There are trajectories to train on." in failed(report)
    assert report.solve_rate is None


def test_every_threshold_is_read(batch: MakeBatch) -> None:
    """Solve rate 2/3, six trajectories a group, one of twelve broken, one log-probability of 0.0005."""
    records = batch(6)
    records[0] = edit(records[0], stop_reason=StopReason.engine_error)
    records[1] = edit(records[1], 0, action_logprobs=(-0.1, 0.0005, -0.1))
    strict = ValidateParams(
        min_solve_rate=0.7, max_solve_rate=0.6, max_drift=0.05, min_per_group=7, max_broken=0.08, max_logprob=1e-4
    )
    assert failed(judge(records)) == []
    assert failed(judge(records, params=strict)) == [
        "At most 8% of the trajectories were cut short by an engine or world fault.",
        "At least 70% solve their task: without successes there is nothing to learn.",
        "At most 60% solve their task: without failures there is nothing to learn.",
        "The solve rate moved by at most 0.05 since the previous round (0.600).",
        "No log-probability lies above 0.0001 (0 is certainty).",
        "Every group of tasks has trajectories: at least 7.",
    ]


@pytest.mark.parametrize("previous", [0.3, 0.95])
def test_a_mixed_and_drifting_batch_without_a_group(batch: MakeBatch, previous: float) -> None:
    records = batch(6)
    records[2] = edit(records[2], policy=Revision(name="sft", revision="2"))
    records[3] = edit(records[3], conditions=conditions(world=Revision(name="mini", revision="2")))
    records[4] = records[4].model_copy(update={"annotator": Revision(name="rules", revision="2")})
    params = ValidateParams(max_drift=0.25)
    report = judge(records, params=params, previous_solve_rate=previous, groups=GROUPS | {"t20": "G3_instruction"})
    assert failed(report) == [
        f"The solve rate moved by at most 0.25 since the previous round ({previous:.3f}).",
        "One annotator judged everything.",
        "One policy sampled everything, or training would not be on-policy.",
        "Everything was sampled in one world, with one format, engine, search and sampling.",
        "Every group of tasks has trajectories: at least 1.",
    ]
    assert [(row.source, row.value) for row in report.failed[-1].failing] == [("G3_instruction", "trajectories 0")]


def test_branches_of_one_search_are_one_attempt(batch: MakeBatch) -> None:
    records = batch(6)
    branch = edit(records[0], id="0" * 16, search="tree")
    records[0] = edit(records[0], search="tree")
    assert failed(judge([*records, branch])) == []


# Single records ------------------------------------------------------------------------------------------


class Fault(NamedTuple):
    says: str
    breaks: Callable[[ScoredTrajectory], ScoredTrajectory]
    step: int | None
    value: str


RECORD_FAULTS = {
    "NaN log-probability": Fault(
        "No log-probability is NaN or infinite.",
        lambda record: edit(record, 1, action_logprobs=(-0.1, NAN, -0.1)), 1, "n_bad_logprobs 1",
    ),
    "infinite log-probabilities": Fault(
        "No log-probability is NaN or infinite.",
        lambda record: edit(record, 0, action_logprobs=(-math.inf, math.inf, -0.1)), 0, "n_bad_logprobs 2",
    ),
    "log-probability above 0": Fault(
        "No log-probability lies above 0.001 (0 is certainty).",
        lambda record: edit(record, 0, action_logprobs=(-0.1, 0.25, -0.1)), 0, "logprob_max 0.25",
    ),
    "nothing sampled": Fault(
        "Every step holds the tokens that were sampled.",
        lambda record: edit(record, 1, action_ids=(), action_logprobs=()), 1, "n_action_tokens 0",
    ),
    "no context": Fault(
        "Every step holds the tokens that came before its action.",
        lambda record: edit(record, 1, context_ids=()), 1, "n_context_tokens 0",
    ),
    "empty": Fault(
        "No trajectory that ended is empty.",
        lambda record: empty(record, StopReason.token_budget), None, "n_steps 0",
    ),
    "over the call budget": Fault(
        "No trajectory makes more calls than its budget.",
        lambda record: budget(record, max_calls=1), None, "max_calls 1, n_steps 2",
    ),
    "over the token budget": Fault(
        "No trajectory holds more tokens than its budget.",
        lambda record: budget(record, max_tokens=9), None, "max_tokens 9, n_tokens 10",
    ),
    "success without an action": Fault(
        "An action that could not be read earns no success.",
        lambda record: edit(rejudge(record, 0, contribution=0.0), 0, action=unreadable()), 0, "success 1",
    ),
    "contribution without an action": Fault(
        "An action that could not be read earns no contribution.",
        lambda record: edit(rejudge(record, 0, success=0.0, contribution=1.0), 0, action=unreadable()),
        0, "contribution 1",
    ),
    "solved without an answer": Fault(
        "A trajectory without an answer counts as unsolved.",
        lambda record: edit(rejudge(record, 1, solved=1.0), stop_reason=StopReason.gave_up), None, "solved 1",
    ),
    "success not judged": Fault(
        "Every step before the last was judged for success.",
        lambda record: rejudge(record, 0, success=None), 0, "success nan",
    ),
    "no verdict": Fault(
        "Every attempt has a verdict: without one, training might unlearn a right answer.",
        lambda record: rejudge(record, 1, solved=None), 1, "solved nan",
    ),
    "a demonstration": Fault(
        "Every step holds the tokens that were sampled.",
        lambda record: edit(record, 0, action_ids=(), action_logprobs=()), 0, "n_action_tokens 0",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def faulty(batch: MakeBatch) -> ValidationReport:
    """Fault number i sits in record i, line i + 2; then come broken rewards, an impostor, and copies."""
    records = batch(20)
    for index, fault in enumerate(RECORD_FAULTS.values()):
        records[index] = fault.breaks(records[index])
    records[21] = edit(records[21], id="0123456789abcdef", attempt=0)
    right = [list(PAPER.rewards(record)) for record in records[22:26]]
    wrong = [[right[0][0] + 0.5, right[0][1]], [NAN, right[1][1]], [*right[2], 0.0], [right[3][0], 1e9]]
    instead = {id(record): given for record, given in zip(records[22:26], wrong, strict=True)}
    return judge([*records, *records[30:]], Off(instead))


def rows(report: ValidationReport, says: str) -> list[tuple[str, int | None, str]]:
    finding = next(finding for finding in report.findings if finding.says == says)
    assert finding.passed == (not finding.failing)
    return [(row.source, row.step, row.value) for row in finding.failing]


@pytest.mark.parametrize("name", RECORD_FAULTS)
def test_a_fault_is_named_with_its_line_and_step(faulty: ValidationReport, name: str) -> None:
    says = RECORD_FAULTS[name].says
    expected = [
        (f"s.jsonl:{line}", fault.step, fault.value)
        for line, fault in enumerate(RECORD_FAULTS.values(), start=2)
        if fault.says == says
    ]
    assert rows(faulty, says) == expected


def test_nothing_fails_but_the_faults(faulty: ValidationReport) -> None:
    assert set(failed(faulty)) == {fault.says for fault in RECORD_FAULTS.values()} | {
        "No trajectory is there twice.",
        "No attempt at a task has two different records.",
        "Everything was sampled in one world, with one format, engine, search and sampling.",  # the budgets differ
        "Every step has one reward.",
        "Every reward is a number.",
        "Every reward is finite.",
        "The discounted rewards of a trajectory add up to their closed form.",
    }


def test_duplicated_trajectories(faulty: ValidationReport, batch: MakeBatch) -> None:
    """Records 30 to 39 again in lines 42 to 51."""
    finding = next(finding for finding in faulty.failed if finding.says == "No trajectory is there twice.")
    assert [row.source for row in finding.failing] == [f"s.jsonl:{line}" for line in [*range(32, 42), *range(42, 52)]]
    assert finding.failing[0].trajectory_id == batch(20)[30].trajectory.id


def test_two_records_of_one_attempt(faulty: ValidationReport) -> None:
    assert rows(faulty, "No attempt at a task has two different records.") == [
        ("s.jsonl:22", None, "task_id t10, attempt 0"),
        ("s.jsonl:23", None, "task_id t10, attempt 0"),
    ]


def test_rewards_that_are_off(faulty: ValidationReport) -> None:
    closed_form = "The discounted rewards of a trajectory add up to their closed form."
    assert rows(faulty, closed_form) == [
        ("s.jsonl:24", None, "return_error 0.5"),
        ("s.jsonl:27", None, "return_error 9e+08"),
    ]
    assert rows(faulty, "Every reward is a number.") == [("s.jsonl:25", 0, "reward nan")]
    assert rows(faulty, "Every step has one reward.") == [("s.jsonl:26", None, "n_rewards 3, n_steps 2")]
    assert rows(faulty, "Every reward is finite.") == [("s.jsonl:27", 1, "reward 1e+09")]


def test_the_error_names_expectations_rows_and_what_to_do(faulty: ValidationReport, batch: MakeBatch) -> None:
    with pytest.raises(ValidationFailed) as caught:
        faulty.raise_if_failed(page="reports/validation/r1.html")
    text = str(caught.value)
    assert text.startswith(f"s.jsonl: {len(faulty.failed)} of {len(faulty.findings)} expectations failed\n")
    assert "✗ No trajectory is there twice. (20 of 50 rows)" in text
    assert f"s.jsonl:32: trajectory {batch(20)[30].trajectory.id}, task t15, attempt 0" in text
    assert "… and 15 more" in text
    assert "→ the engine reports impossible log-probabilities" in text
    assert text.endswith("the whole report is in reports/validation/r1.html")
    assert caught.value.exit_code == 3


def test_a_report_shows_twenty_rows_and_counts_all(batch: MakeBatch) -> None:
    finding = judge(batch(6) * 3).failed[0]
    assert (len(finding.failing), finding.failing_count) == (20, 36)

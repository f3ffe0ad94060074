"""Every fault fails exactly its own expectation, and the report names the rows.

    healthy batch: 6 tasks x 2 attempts = 12 trajectories of 2 steps, records in lines 2..13
    solved: tasks 1, 2, 4, 5 (solve rate 2/3); paper rewards 0.5 (1 + c) then solved
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from steptool.errors import DataError, ValidationFailed
from steptool.params import RewardParams, ValidateParams
from steptool.rewards.shaping import step_rewards
from steptool.types import Judgement, Revision, ScoredTrajectory, StopReason
from steptool.validation.gate import Finding, ValidationReport, validate

REWARD = RewardParams(form="paper", alpha=0.5, step_cost=0, budget_cost=0)
GAMMA = 0.9
SUBSETS = ("G1_instruction", "G2_instruction")
Batch = list[ScoredTrajectory]


def judge(batch: Batch, rewards: list[list[float]] | None = None, **changes: Any) -> ValidationReport:
    settings: dict[str, Any] = {"previous_solve_rate": 0.6, "sampled": True, "subsets": SUBSETS, "source": "s.jsonl"} | changes
    params = settings.pop("params", ValidateParams())
    given = rewards if rewards is not None else [step_rewards(record, REWARD, GAMMA) for record in batch]
    return validate(batch, given, params, reward=REWARD, gamma=GAMMA, **settings)


def the_failure(report: ValidationReport) -> Finding:
    """The one expectation that failed."""
    assert [finding.says for finding in report.failed] == [report.failed[0].says]
    assert report.failed[0].fix
    return report.failed[0]


def edit(record: ScoredTrajectory, step: int | None = None, **fields: Any) -> ScoredTrajectory:
    """A copy with fields of the trajectory, or of one step, set past every check that the types make."""
    trajectory = record.trajectory
    if step is not None:
        steps = list(trajectory.steps)
        steps[step] = steps[step].model_copy(update=fields)
        fields = {"steps": tuple(steps)}
    return record.model_copy(update={"trajectory": trajectory.model_copy(update=fields)})


def test_a_healthy_batch_passes_every_expectation(healthy: Batch) -> None:
    report = judge(healthy)
    assert [finding.says for finding in report.failed] == []
    assert (report.trajectories, report.tasks, report.steps) == (12, 6, 24)
    assert report.solve_rate == pytest.approx(2 / 3)
    assert report.mean_return == pytest.approx((8 * (1.0 + 0.9) + 4 * 0.5) / 12)
    assert [suite.name for suite in report.suites] == ["trajectories", "steps", "subsets"]
    report.raise_if_failed()


def test_the_same_batch_gives_the_same_report(healthy: Batch) -> None:
    assert judge(healthy).model_dump_json() == judge(healthy).model_dump_json()


def test_demonstrations_need_no_tokens(healthy: Batch) -> None:
    bare = {"context_ids": (), "action_ids": (), "action_logprobs": ()}
    demonstrations = [edit(edit(record, 0, **bare), 1, **bare) for record in healthy]
    assert judge(demonstrations, sampled=False).passed
    assert not judge(demonstrations, sampled=True).passed


def test_a_duplicated_trajectory(healthy: Batch) -> None:
    failure = the_failure(judge([*healthy, healthy[4]]))
    assert failure.says == "No trajectory is there twice."
    assert [row.source for row in failure.failing] == ["s.jsonl:6", "s.jsonl:14"]
    assert {row.trajectory_id for row in failure.failing} == {healthy[4].trajectory.id}


def test_two_records_of_one_attempt(healthy: Batch) -> None:
    other = edit(healthy[1], id="0123456789abcdef", attempt=0)
    failure = the_failure(judge([healthy[0], other, *healthy[2:]]))
    assert failure.says == "No attempt at a task has two different records."
    assert [row.value for row in failure.failing] == ["task_id t0, attempt 0"] * 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_log_probability_that_is_no_number(healthy: Batch, value: float) -> None:
    healthy[3] = edit(healthy[3], 1, action_logprobs=(-0.1, value, -0.1))
    failure = the_failure(judge(healthy))
    assert failure.says == "No log-probability is NaN or infinite."
    assert [(row.source, row.step, row.value) for row in failure.failing] == [("s.jsonl:5", 1, "n_bad_logprobs 1")]


def test_missing_log_probabilities(healthy: Batch) -> None:
    healthy[3] = edit(healthy[3], 0, action_logprobs=())
    failure = the_failure(judge(healthy))
    assert failure.says == "Every sampled token has its log-probability."
    assert [(row.step, row.value) for row in failure.failing] == [(0, "n_logprobs 0, n_action_tokens 3")]


def test_a_log_probability_above_zero(healthy: Batch) -> None:
    healthy[3] = edit(healthy[3], 0, action_logprobs=(-0.1, 0.25, -0.1))
    failure = the_failure(judge(healthy))
    assert failure.says == "No log-probability lies above 0.001 (0 is certainty)."
    assert failure.failing[0].value == "logprob_max 0.25"


def test_a_step_that_was_not_sampled(healthy: Batch) -> None:
    healthy[0] = edit(healthy[0], 1, action_ids=(), action_logprobs=())
    assert the_failure(judge(healthy)).says == "Every step holds the tokens that were sampled."


def test_a_step_without_context(healthy: Batch) -> None:
    healthy[0] = edit(healthy[0], 1, context_ids=())
    assert the_failure(judge(healthy)).says == "Every step holds the tokens that came before its action."


def test_rewards_of_other_settings(healthy: Batch) -> None:
    rewards = [step_rewards(record, REWARD, GAMMA) for record in healthy]
    rewards[7] = [rewards[7][0] + 0.5, rewards[7][1]]
    failure = the_failure(judge(healthy, rewards))
    assert failure.says == "The discounted rewards of a trajectory add up to their closed form."
    assert [(row.source, row.value) for row in failure.failing] == [("s.jsonl:9", "return_error 0.5")]


def test_a_reward_that_is_no_number(healthy: Batch) -> None:
    rewards = [step_rewards(record, REWARD, GAMMA) for record in healthy]
    rewards[7][0] = math.nan
    failure = the_failure(judge(healthy, rewards))
    assert failure.says == "Every reward is a number."
    assert [(row.source, row.step) for row in failure.failing] == [("s.jsonl:9", 0)]


def test_one_reward_too_many(healthy: Batch) -> None:
    rewards = [step_rewards(record, REWARD, GAMMA) for record in healthy]
    rewards[7].append(0.0)
    assert the_failure(judge(healthy, rewards)).failing[0].value == "n_rewards 3, n_steps 2"


def test_rewards_of_another_batch_are_refused(healthy: Batch) -> None:
    with pytest.raises(DataError, match="12 trajectories but 1 lists of rewards"):
        judge(healthy, [[1.0]])


def test_an_empty_trajectory(healthy: Batch) -> None:
    healthy[2] = edit(healthy[2], steps=(), stop_reason=StopReason.token_budget).model_copy(update={"judgements": ()})
    failure = the_failure(judge(healthy))
    assert failure.says == "No trajectory that ended is empty."
    assert [(row.source, row.value) for row in failure.failing] == [("s.jsonl:4", "n_steps 0")]


def test_an_empty_trajectory_after_an_engine_fault_is_a_record(healthy: Batch) -> None:
    healthy[2] = edit(healthy[2], steps=(), stop_reason=StopReason.engine_error).model_copy(update={"judgements": ()})
    assert judge(healthy).passed


def test_too_many_engine_faults(healthy: Batch) -> None:
    for index in (0, 1):  # both unsolved
        healthy[index] = edit(healthy[index], stop_reason=StopReason.engine_error)
    failure = the_failure(judge(healthy))
    assert failure.says.startswith("At most 10% of the trajectories were cut short")
    assert failure.observed == "0.1667"


def test_a_missing_subset(healthy: Batch) -> None:
    failure = the_failure(judge(healthy, subsets=(*SUBSETS, "G3_instruction")))
    assert failure.says == "Every subset has at least 1 trajectory."
    assert [(row.source, row.value) for row in failure.failing] == [("G3_instruction", "trajectories 0")]


def with_solved(batch: Batch, solved: float) -> Batch:
    return [record.model_copy(update={"judgements": (record.judgements[0], Judgement(solved=solved))}) for record in batch]


def test_none_solved(healthy: Batch) -> None:
    failure = the_failure(judge(with_solved(healthy, 0.0), previous_solve_rate=None))
    assert failure.says.startswith("At least 2% of the trajectories solve their task")


def test_all_solved(healthy: Batch) -> None:
    failure = the_failure(judge(with_solved(healthy, 1.0), previous_solve_rate=None))
    assert failure.says.startswith("At most 99% solve their task")


def test_returns_without_a_difference(healthy: Batch) -> None:
    alike = [healthy[0].model_copy(update={"trajectory": record.trajectory}) for record in healthy]
    failure = the_failure(judge(alike, params=ValidateParams(min_solve_rate=0), previous_solve_rate=None))
    assert failure.says.startswith("Returns differ between trajectories")


@pytest.mark.parametrize("previous", [0.3, 0.95])
def test_drift_of_the_solve_rate_either_way(healthy: Batch, previous: float) -> None:
    failure = the_failure(judge(healthy, previous_solve_rate=previous))
    assert failure.says.startswith("The solve rate moved by at most 0.25")
    assert failure.observed == "0.6667"


def test_a_mixture_of_policies(healthy: Batch) -> None:
    healthy[0] = edit(healthy[0], policy=Revision(name="sft", revision="2"))
    assert the_failure(judge(healthy)).says.startswith("One policy sampled everything")


def test_a_mixture_of_worlds(healthy: Batch) -> None:
    healthy[0] = edit(healthy[0], world=Revision(name="mini", revision="2"))
    assert the_failure(judge(healthy)).says == "All trajectories come from one revision of the world."


def test_a_mixture_of_annotators(healthy: Batch) -> None:
    healthy[0] = healthy[0].model_copy(update={"annotator": Revision(name="rules", revision="2")})
    assert the_failure(judge(healthy)).says == "One annotator judged everything."


def test_more_calls_than_the_budget(healthy: Batch) -> None:
    tight = healthy[0].trajectory.sampling.model_copy(update={"max_calls": 1})
    healthy[0] = edit(healthy[0], sampling=tight)
    assert the_failure(judge(healthy)).failing[0].value == "max_calls 1, n_steps 2"


def test_more_tokens_than_the_budget(healthy: Batch) -> None:
    tight = healthy[0].trajectory.sampling.model_copy(update={"max_tokens": 9})
    healthy[0] = edit(healthy[0], sampling=tight)
    assert the_failure(judge(healthy)).failing[0].value == "max_tokens 9, n_tokens 10"


def test_solved_without_an_answer(healthy: Batch) -> None:
    healthy[2] = edit(healthy[2], stop_reason=StopReason.gave_up)
    assert the_failure(judge(healthy)).says == "A trajectory without an answer counts as unsolved."


@pytest.mark.parametrize(
    ("judgement", "says"),
    [
        ({"success": math.nan, "contribution": 1.0}, "Every step before the last was judged for success."),
        ({"success": 1.0, "contribution": None}, "Every step before the last was judged for contribution."),
        ({"success": 1.0, "contribution": 1.5}, "Contribution lies between 0 and 1."),
    ],
)
def test_a_broken_judgement(healthy: Batch, judgement: dict[str, Any], says: str) -> None:
    rewards = [step_rewards(record, REWARD, GAMMA) for record in healthy]
    broken = Judgement.model_construct(**judgement)
    healthy[2] = healthy[2].model_copy(update={"judgements": (broken, healthy[2].judgements[1])})
    with_it = [step_rewards(record, REWARD, GAMMA) if record is healthy[2] else given for record, given in zip(healthy, rewards, strict=True)]
    report = judge(healthy, rewards if math.nan in judgement.values() else with_it)
    assert says in [finding.says for finding in report.failed]
    assert [(row.source, row.step) for row in next(f for f in report.failed if f.says == says).failing] == [("s.jsonl:4", 0)]


def test_a_parse_error_that_earned_success(healthy: Batch) -> None:
    healthy[0] = edit(healthy[0], 0, call=None, parse_error="no call")  # judged success 1, contribution 0
    assert the_failure(judge(healthy)).says == "An action that is no call earns no success."


def test_nothing_at_all_fails_without_crashing() -> None:
    report = judge([])
    assert "There are trajectories to train on." in [finding.says for finding in report.failed]


def test_the_error_names_expectations_rows_and_what_to_do(healthy: Batch) -> None:
    report = judge([*healthy, *healthy], previous_solve_rate=0.1)
    with pytest.raises(ValidationFailed) as caught:
        report.raise_if_failed(page="reports/validation/r1.html")
    text = str(caught.value)
    assert text.startswith("s.jsonl: 2 of ")
    assert "✗ No trajectory is there twice. (24 of 24 rows)" in text
    assert f"s.jsonl:2: trajectory {healthy[0].trajectory.id}, task t0, attempt 0" in text
    assert "… and 19 more" in text
    assert "✗ The solve rate moved by at most 0.25 since the previous round (0.100). (0.6667)" in text
    assert "read some solved trajectories for a loophole" in text
    assert text.endswith("every row is in reports/validation/r1.html")
    assert caught.value.exit_code == 3


def test_a_report_shows_twenty_rows_and_counts_all(healthy: Batch) -> None:
    failure = the_failure(judge([*healthy, *healthy]))
    assert (len(failure.failing), failure.failing_count) == (20, 24)


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        ({"min_solve_rate": 0.7}, False),
        ({"max_solve_rate": 0.6}, False),
        ({"max_drift": 0.05}, False),
        ({"min_per_subset": 7}, False),
        ({"max_broken": 0.0}, True),
        ({"max_logprob": 0.0}, True),
    ],
)
def test_every_threshold_is_read(healthy: Batch, change: dict[str, float], passes: bool) -> None:
    assert judge(healthy, params=ValidateParams(**change)).passed is passes

"""What must hold of scored trajectories before anything trains on them, as Great Expectations suites.

Every expectation carries in `meta` what it says in plain words and what to do when it fails. Suites are
built in code on every run: a stored suite can lose expectations on loading without an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import great_expectations.expectations as gxe
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.row_conditions import Column

from steptool.checks.table import STEP_COLUMNS, SUBSET_COLUMNS, TRAJECTORY_COLUMNS
from steptool.config.settings import ValidateParams
from steptool.core.types import StopReason

MOST = 1e6
"""No reward, return or log-probability is larger; keeps infinities out."""
RETURN_TOLERANCE = 1e-6

SAMPLE_AGAIN = "run `dvc repro --force --single-item sample@<round>`"
ANNOTATE_AGAIN = "run `dvc repro --force --single-item annotate@<round>`"
BROKEN_ENGINE = "the engine reports log-probabilities that cannot be: run `steptool doctor`, then sample again"


@dataclass(frozen=True)
class Facts:
    """What the suites depend on beside the thresholds."""

    sampled: bool
    """The policy under training made these, so tokens and log-probabilities must be there."""
    closed_form: bool
    """`return_error` is filled."""
    previous_solve_rate: float | None = None


def _meta(says: str, fix: str) -> dict[str, Any]:
    return {"says": says, "fix": fix}


def _columns(meaning: dict[str, str]) -> Expectation:
    return gxe.ExpectTableColumnsToMatchSet(
        column_set=list(meaning),
        exact_match=True,
        meta=_meta(
            "The table has exactly the columns that the checks know.", "keep table.py and its *_COLUMNS in step"
        ),
    )


def trajectory_suite(params: ValidateParams, facts: Facts) -> list[Expectation]:
    """One row a trajectory: identity, endings, budgets, returns, solve rate."""
    expectations = [
        _columns(TRAJECTORY_COLUMNS),
        gxe.ExpectTableRowCountToBeBetween(
            min_value=1,
            meta=_meta(
                "There are trajectories to train on.", f"sample.tasks is 0 or nothing came back: {SAMPLE_AGAIN}"
            ),
        ),
        gxe.ExpectColumnValuesToBeUnique(
            column="trajectory_id",
            meta=_meta("No trajectory is there twice.", f"a file was joined with itself: {SAMPLE_AGAIN}"),
        ),
        gxe.ExpectCompoundColumnsToBeUnique(
            column_list=["task_id", "attempt"],
            row_condition=Column("is_copy") == False,  # noqa: E712 - builds a condition
            meta=_meta("No attempt at a task has two different records.", f"two runs were mixed: {SAMPLE_AGAIN}"),
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="stop_reason",
            value_set=[reason.value for reason in StopReason],
            meta=_meta("Every trajectory says why it stopped.", SAMPLE_AGAIN),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="n_steps",
            min_value=1,
            row_condition=Column("broken") == 0,
            meta=_meta(
                "No trajectory that ended is empty.",
                "the prompt leaves no room for a step: raise sample.max_tokens, or offer fewer tools",
            ),
        ),
        gxe.ExpectColumnMeanToBeBetween(
            column="broken",
            max_value=params.max_broken,
            meta=_meta(
                f"At most {params.max_broken:.0%} of the trajectories were cut short by an engine or world fault.",
                "look at `error` in these trajectories, mend the engine or the tools, then sample again",
            ),
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="solved",
            value_set=[0.0],
            row_condition=Column("finished") == False,  # noqa: E712
            meta=_meta(
                "A trajectory without an answer counts as unsolved.",
                f"the annotator is wrong: mend it and {ANNOTATE_AGAIN}",
            ),
        ),
        gxe.ExpectColumnPairValuesToBeEqual(
            column_A="n_rewards",
            column_B="n_steps",
            meta=_meta(
                "Every step has one reward.", "rewards and trajectories are out of step: validate them together"
            ),
        ),
        gxe.ExpectColumnMeanToBeBetween(
            column="solved",
            min_value=params.min_solve_rate,
            meta=_meta(
                f"At least {params.min_solve_rate:.0%} solve their task: without successes there is nothing to learn.",
                "train the start policy longer (sft.epochs), offer easier tasks, or lower validate.min_solve_rate",
            ),
        ),
        gxe.ExpectColumnMeanToBeBetween(
            column="solved",
            max_value=params.max_solve_rate,
            meta=_meta(
                f"At most {params.max_solve_rate:.0%} solve their task: without failures there is nothing to learn.",
                "offer harder tasks, stop after this round, or raise validate.max_solve_rate",
            ),
        ),
        gxe.ExpectColumnStdevToBeBetween(
            column="discounted_return",
            min_value=params.min_return_spread,
            meta=_meta(
                "Returns differ between trajectories: equal ones carry no signal.",
                "check the reward section, and sample more tasks or attempts",
            ),
        ),
        *_one_value("annotator", "One annotator judged everything.", ANNOTATE_AGAIN),
    ]
    if facts.previous_solve_rate is not None:
        expectations.append(
            gxe.ExpectColumnMeanToBeBetween(
                column="solved",
                min_value=facts.previous_solve_rate - params.max_drift,
                max_value=facts.previous_solve_rate + params.max_drift,
                meta=_meta(
                    f"The solve rate moved by at most {params.max_drift:.2f} since the previous round "
                    f"({facts.previous_solve_rate:.3f}).",
                    "a fall: the last round harmed the policy, lower train.learning_rate; a leap: read some solved "
                    "trajectories for a loophole; then raise validate.max_drift if all is well",
                ),
            )
        )
    if facts.closed_form:
        expectations.append(
            gxe.ExpectColumnValuesToBeBetween(
                column="return_error",
                min_value=0,
                max_value=RETURN_TOLERANCE,
                meta=_meta(
                    "The discounted rewards of a trajectory add up to their closed form.",
                    "the rewards come from other settings or another order: compute them anew from these judgements",
                ),
            )
        )
    if facts.sampled:
        expectations += [
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A="max_calls",
                column_B="n_steps",
                or_equal=True,
                meta=_meta("No trajectory makes more calls than its budget.", SAMPLE_AGAIN),
            ),
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A="max_tokens",
                column_B="n_tokens",
                or_equal=True,
                meta=_meta("No trajectory holds more tokens than its budget.", SAMPLE_AGAIN),
            ),
            *_one_value("policy", "One policy sampled everything, or training would not be on-policy.", SAMPLE_AGAIN),
            *_one_value("world", "All trajectories come from one revision of the world.", SAMPLE_AGAIN),
        ]
    return expectations


def _one_value(column: str, says: str, fix: str) -> list[Expectation]:
    return [gxe.ExpectColumnUniqueValueCountToBeBetween(column=column, max_value=1, meta=_meta(says, fix))]


def step_suite(params: ValidateParams, facts: Facts) -> list[Expectation]:
    """One row a step: judgements, rewards, tokens and log-probabilities."""
    before_last, last, without_call = Column("is_last") == False, Column("is_last") == True, Column("has_call") == False  # noqa: E712
    expectations = [_columns(STEP_COLUMNS)]
    for column, rows, which in (
        ("success", before_last, "Every step before the last"),
        ("contribution", before_last, "Every step before the last"),
        ("solved", last, "Every last step"),
    ):
        expectations += [
            gxe.ExpectColumnValuesToNotBeNull(
                column=column, row_condition=rows, meta=_meta(f"{which} was judged for {column}.", ANNOTATE_AGAIN)
            ),
            gxe.ExpectColumnValuesToBeBetween(
                column=column,
                min_value=0,
                max_value=1,
                meta=_meta(f"{column.capitalize()} lies between 0 and 1.", ANNOTATE_AGAIN),
            ),
        ]
    for column in ("success", "contribution"):
        expectations.append(
            gxe.ExpectColumnValuesToBeInSet(
                column=column,
                value_set=[0.0],
                row_condition=without_call,
                meta=_meta(
                    f"An action that is no call earns no {column}.",
                    f"the annotator is wrong: mend it and {ANNOTATE_AGAIN}",
                ),
            )
        )
    expectations += [
        gxe.ExpectColumnValuesToNotBeNull(
            column="reward",
            meta=_meta("Every reward is a number.", "a judgement or a reward setting is NaN: annotate again"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="reward",
            min_value=-MOST,
            max_value=MOST,
            meta=_meta("Every reward is finite.", "check the reward section"),
        ),
    ]
    if not facts.sampled:
        return expectations
    expectations += [
        gxe.ExpectColumnValuesToBeBetween(
            column="n_action_tokens",
            min_value=1,
            meta=_meta(
                "Every step holds the tokens that were sampled.",
                f"these were not sampled by the engine: {SAMPLE_AGAIN}",
            ),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="n_context_tokens",
            min_value=1,
            meta=_meta("Every step holds the tokens that came before its action.", SAMPLE_AGAIN),
        ),
        gxe.ExpectColumnPairValuesToBeEqual(
            column_A="n_logprobs",
            column_B="n_action_tokens",
            meta=_meta("Every sampled token has its log-probability.", SAMPLE_AGAIN),
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="n_bad_logprobs",
            value_set=[0],
            meta=_meta("No log-probability is NaN or infinite.", BROKEN_ENGINE),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="logprob_max",
            min_value=-MOST,
            max_value=params.max_logprob,
            meta=_meta(f"No log-probability lies above {params.max_logprob:g} (0 is certainty).", BROKEN_ENGINE),
        ),
    ]
    return expectations


def subset_suite(params: ValidateParams) -> list[Expectation]:
    """One row a subset: coverage."""
    return [
        _columns(SUBSET_COLUMNS),
        gxe.ExpectColumnValuesToBeBetween(
            column="trajectories",
            min_value=params.min_per_subset,
            meta=_meta(
                f"Every subset has trajectories: at least {params.min_per_subset}.",
                "raise sample.tasks, or lower validate.min_per_subset",
            ),
        ),
    ]

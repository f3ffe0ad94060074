"""The conditions that scored trajectories must meet before a training reads them, as Great Expectations suites.

Every expectation carries in `meta` what it says in plain words and what to do when it fails. Suites are
built in code on every run: a stored suite can lose expectations on loading without an error.
"""

from __future__ import annotations

from typing import Any

import great_expectations.expectations as gxe
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.row_conditions import Column

from steptool.config.settings import ValidateParams

MOST = 1e6
"""No reward, return or log-probability is larger; keeps infinities out."""
RETURN_TOLERANCE = 1e-6

SAMPLE_AGAIN = "run `dvc repro --force --single-item sample-ROUND`"
ANNOTATE_AGAIN = "run `dvc repro --force --single-item annotate-ROUND`"
NO_SCORE = (
    "the annotator gave no score: take another one, or mend the one that you brought; of `judge`, read its reasons, "
    "then raise max_completion_tokens, or set annotate.unusable: rules"
)
NO_VERDICT = (
    "set `reward: {use: auto}`, which learns from the calls where there is no verdict; or give every training task a "
    "check, or take a world or an annotator that can tell"
)
BROKEN_ENGINE = "the engine reports impossible log-probabilities: run `steptool doctor`, then sample again"


def _meta(says: str, fix: str) -> dict[str, Any]:
    return {"says": says, "fix": fix}


def trajectory_suite(
    params: ValidateParams,
    previous_solve_rate: float | None,
    *,
    was_sampled: bool = True,
    has_closed_form: bool,
    has_verdicts: bool,
) -> list[Expectation]:
    """One row a trajectory: identity, endings, budgets, returns, solve rate.

    `previous_solve_rate`: of the round before. `was_sampled`: by us, and not imported: then one policy did it, under
    one set of conditions, and the contrast between attempts is what is learned from. `has_closed_form`: the column
    `return_error` is filled. `has_verdicts`: there are enough of them for a solve rate to say something.
    """
    expectations = [
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
            row_condition=Column("is_known") == False,  # noqa: E712 - builds a condition
            meta=_meta("No attempt at a task has two different records.", f"two runs were mixed: {SAMPLE_AGAIN}"),
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
        *(_solve_rate(params, previous_solve_rate) if was_sampled and has_verdicts else ()),
        _one_value("annotator", "One annotator judged everything.", ANNOTATE_AGAIN),
        *(_of_sampled(params) if was_sampled else ()),
    ]
    if has_closed_form:
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
    return expectations


def _of_sampled(params: ValidateParams) -> list[Expectation]:
    """What makes attempts a sample of one policy, within its budgets, that can be compared with each other."""
    return [
        gxe.ExpectColumnStdevToBeBetween(
            column="discounted_return",
            min_value=params.min_return_spread,
            meta=_meta(
                "Returns differ between trajectories: from equal returns nothing can be learned.",
                "check the reward section, and sample more tasks or attempts",
            ),
        ),
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
        _one_value("policy", "One policy sampled everything, or training would not be on-policy.", SAMPLE_AGAIN),
        _one_value(
            "conditions",
            "Everything was sampled in one world, with one format, engine, search and sampling.",
            SAMPLE_AGAIN,
        ),
    ]


def _solve_rate(params: ValidateParams, previous: float | None) -> list[Expectation]:
    """Of the trajectories that have a verdict."""
    expectations = [
        gxe.ExpectColumnMeanToBeBetween(
            column="solved",
            min_value=params.min_solve_rate,
            meta=_meta(
                f"At least {params.min_solve_rate:.0%} solve their task: without successes there is nothing to learn.",
                "train the start policy longer (methods.sft.epochs), offer easier tasks, or lower "
                "validate.min_solve_rate",
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
    ]
    if previous is not None:
        expectations.append(
            gxe.ExpectColumnMeanToBeBetween(
                column="solved",
                min_value=previous - params.max_drift,
                max_value=previous + params.max_drift,
                meta=_meta(
                    f"The solve rate moved by at most {params.max_drift:.2f} since the previous round "
                    f"({previous:.3f}).",
                    "a fall: the last round harmed the policy, lower its method's learning_rate; a leap: read some "
                    "solved trajectories for a loophole; then raise validate.max_drift if all is well",
                ),
            )
        )
    return expectations


def _one_value(column: str, says: str, fix: str) -> Expectation:
    return gxe.ExpectColumnUniqueValueCountToBeBetween(column=column, max_value=1, meta=_meta(says, fix))


def step_suite(params: ValidateParams, *, needs_verdict: bool, was_sampled: bool = True) -> list[Expectation]:
    """One row a step: judgements and rewards; tokens and log-probabilities, where they were sampled and not imported.

    `needs_verdict`: the reward form would take an attempt without a verdict for one that failed.
    """
    before_last, last = Column("is_last") == False, Column("is_last") == True  # noqa: E712
    unreadable = Column("is_readable") == False  # noqa: E712
    judged = [
        gxe.ExpectColumnValuesToNotBeNull(
            column=column,
            row_condition=before_last,
            meta=_meta(f"Every step before the last was judged for {column}.", NO_SCORE),
        )
        for column in ("success", "contribution")
    ]
    earned = [
        gxe.ExpectColumnValuesToBeInSet(
            column=column,
            value_set=[0.0],
            row_condition=unreadable,
            meta=_meta(
                f"An action that could not be read earns no {column}.",
                f"the annotator is wrong: mend it and {ANNOTATE_AGAIN}",
            ),
        )
        for column in ("success", "contribution")
    ]
    verdict = gxe.ExpectColumnValuesToNotBeNull(
        column="solved",
        row_condition=last,
        meta=_meta("Every attempt has a verdict: without one, training might unlearn a right answer.", NO_VERDICT),
    )
    return [
        *judged,
        *([verdict] if needs_verdict else ()),
        *earned,
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
        *(_of_tokens(params) if was_sampled else ()),
    ]


def _of_tokens(params: ValidateParams) -> list[Expectation]:
    return [
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


def group_suite(params: ValidateParams) -> list[Expectation]:
    """One row a group of tasks: coverage."""
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="trajectories",
            min_value=params.min_per_group,
            meta=_meta(
                f"Every group of tasks has trajectories: at least {params.min_per_group}.",
                "raise sample.tasks, or lower validate.min_per_group",
            ),
        ),
    ]

from __future__ import annotations

import pytest

from steptool.core.types import Step, StopReason
from steptool.evaluation.failures import Cause, failure_cause, failure_shares
from steptool.testing import step, unreadable
from tests.evaluation.samples import DETAILS, LOOKUP, call, evaluation, finish, give_up, scored, task

FIND = call(LOOKUP.name, {"title": "x"}, '{"id":"bk1"}')
UNKNOWN = call("nope", {}, "no such tool", "unknown_tool")
MISSING = call(DETAILS.name, {}, "missing id", "missing_argument")
NO_JSON = step(unreadable("no JSON"), error="parse_error")
SEVERAL = FIND.model_copy(update={"action": FIND.action.model_copy(update={"calls": FIND.action.calls * 2}),
                                  "observations": FIND.observations + MISSING.observations})  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "stop", "cause"),
    [
        ([FIND, finish("1")], None, Cause.wrong_answer),
        ([give_up()], None, Cause.gave_up),
        ([FIND, FIND], StopReason.call_budget, Cause.budget),
        ([FIND], StopReason.token_budget, Cause.budget),
        ([], StopReason.token_budget, Cause.budget),
        ([FIND, MISSING], StopReason.call_budget, Cause.bad_arguments),
        ([FIND, UNKNOWN], StopReason.call_budget, Cause.unknown_tool),
        ([NO_JSON], StopReason.token_budget, Cause.parse_error),
        ([UNKNOWN, FIND], StopReason.call_budget, Cause.budget),  # it had recovered
        ([SEVERAL], StopReason.call_budget, Cause.bad_arguments),
        ([FIND], StopReason.rewritten, Cause.rewritten),
        ([FIND], StopReason.world_error, Cause.fault),
        ([], StopReason.engine_error, Cause.fault),
    ],
)
def test_cause_follows_from_how_the_attempt_ended(steps: list[Step], stop: StopReason | None, cause: Cause) -> None:
    assert failure_cause(scored(task(0), steps, 0.0, stop=stop)) is cause


def test_an_answer_that_nobody_judged_is_not_wrong() -> None:
    assert failure_cause(scored(task(0), [FIND, finish("1")], None)) is Cause.unjudged
    assert failure_cause(scored(task(0), [give_up()], None)) is Cause.gave_up


def test_shares_and_pass_rate_sum_to_one_with_a_missing_attempt() -> None:
    """Four tasks: solved, half solved by a judge, gave up, never tried: 1.5/4 solved."""
    tasks = [task(index) for index in range(4)]
    judged = [
        scored(tasks[0], [finish("1")], 1.0),
        scored(tasks[1], [finish("1")], 0.5),
        scored(tasks[2], [give_up()], 0.0),
    ]
    result = evaluation("sft", judged, tasks)
    shares = failure_shares(result, judged)
    assert shares[Cause.wrong_answer] == pytest.approx(0.125)
    assert shares[Cause.gave_up] == shares[Cause.no_attempt] == pytest.approx(0.25)
    assert sum(shares.values()) + result.pass_rate == pytest.approx(1)

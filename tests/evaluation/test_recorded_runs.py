"""The published runs of StepTool, re-measured. Needs the recorded pack in STEPTOOL_RECORDED; skipped without it.

The authors compare a baseline that stops at 4 actions with a policy that takes up to 17. Replayed here:

    chain of thought against SFT, 650 of the 765 requests                  points
    as published                                                           +9.0
    runs of more than 4 actions counted unsolved, as the baseline's are    −0.2
    where both finish                                                      −1.6

On all 765 requests the first two are +9.2 [6.4, 12.2] and 0.0 [−2.4, 2.4]; these lie inside both.
"""

from __future__ import annotations

import gzip
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steptool.core.errors import DataError, NotComparable
from steptool.core.types import FINISH, Conditions, ScoredTrajectory, StopReason
from steptool.evaluation.compare import compare, paired_difference
from steptool.evaluation.metrics import Evaluation, evaluate
from steptool.testing import call, conditions, judgement, reference, revision, step, task, trajectory
from steptool.testing import scored as judged

RECORDED = Path(os.environ.get("STEPTOOL_RECORDED", ""))
pytestmark = pytest.mark.skipif(
    not (RECORDED / "judged_runs").is_dir(), reason="STEPTOOL_RECORDED names no recorded pack"
)

ANNOTATOR = revision("gpt-4", "3 votes")


@cache
def runs(name: str) -> list[dict[str, Any]]:
    with gzip.open(RECORDED / "judged_runs" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def under(max_calls: int) -> Conditions:
    return conditions(world="recorded", temperature=0.0, max_calls=max_calls, max_step_tokens=1024, max_tokens=8192)


def scored(run: dict[str, Any], max_calls: int) -> ScoredTrajectory:
    """The recorded run as a trajectory. It ends early where its `Finish` is not the last call."""
    steps = []
    for made in run["steps"]:
        arguments = {"answer": run["final_answer"]} if made["name"] == FINISH else {"raw": made["arguments"]}
        error = made.get("error", "none")
        steps.append(step(call(made["name"], **arguments), made["response"], error=None if error == "none" else error))
        if made["name"] == FINISH:
            break
    if run["return_type"] == "give_answer":
        stop = StopReason.finished
    else:
        stop = StopReason.gave_up if steps[-1].is_finish else StopReason.call_budget
    before_last = [
        judgement(success=float(each.observations[0].error is None), contribution=0.0) for each in steps[:-1]
    ]
    made_by = trajectory(
        *steps,
        of=run["query_id"],
        stop=stop,
        answer=run["final_answer"] if stop is StopReason.finished else None,
        solved=run["solved"],
        policy=revision(run["run"], "published"),
        conditions=under(max_calls),
    )
    return judged(made_by, *before_last, judgement(solved=run["solved"]), annotator=ANNOTATOR)


def measured(name: str, max_calls: int) -> Evaluation:
    tasks = [task(run["query_id"], "", group=run["subset"]) for run in runs(name)]
    return evaluate(
        name,
        revision(name, "published"),
        [scored(run, max_calls) for run in runs(name)],
        tasks,
        {each.id: reference(each) for each in tasks},
        conditions=under(max_calls),
        annotator=ANNOTATOR,
        attempts=1,
        split="test",
        resamples=2_000,
        confidence=0.95,
        rng=np.random.default_rng(0),
    )


def paired(only: Any = lambda new, old: True, cap: int = 1_000) -> Any:
    """Difference of verdicts in points over the requests that `only` keeps; longer runs than `cap` are unsolved."""
    old = {run["query_id"]: run for run in runs("toolllama_sft_cot")}
    values = [
        (run["solved"] if len(run["steps"]) <= cap else 0.0) - old[run["query_id"]]["solved"]
        for run in runs("steptool_cot")
        if only(run, old[run["query_id"]])
    ]
    return paired_difference(np.array(values), resamples=10_000, confidence=0.95, rng=np.random.default_rng(0))


def test_pass_rate_is_the_mean_verdict_over_all_requests() -> None:
    result = measured("toolllama_sft_cot", 4)
    assert len(result.solved) == 650
    assert result.pass_rate == pytest.approx(np.mean([run["solved"] for run in runs("toolllama_sft_cot")]))
    assert result.finish_rate == pytest.approx(455 / 650)
    assert [len(tasks) for tasks in result.groups.values()][:6] == [139, 134, 130, 90, 105, 52]


def test_the_published_comparison_is_refused() -> None:
    """17 calls against 4: the difference of +9.0 points is one of budgets."""
    with pytest.raises(NotComparable, match="max_calls: 17 against 4"):
        compare(measured("steptool_cot", 17), measured("toolllama_sft_cot", 4), resamples=100, confidence=0.95, seed=0)


def test_a_long_run_cannot_be_passed_off_as_a_short_one() -> None:
    with pytest.raises(DataError, match="actions against max_calls 4"):
        measured("steptool_cot", 4)


def test_gain_without_a_budget() -> None:
    result = paired()
    assert 100 * result.difference == pytest.approx(9.03, abs=0.01)
    assert 100 * result.low == pytest.approx(6.0, abs=0.5)
    assert 100 * result.high == pytest.approx(12.1, abs=0.5)


def test_gain_is_gone_at_the_baselines_budget() -> None:
    result = paired(cap=4)
    assert 100 * result.difference == pytest.approx(-0.23, abs=0.01)
    assert not result.significant


def test_gain_is_gone_where_both_finish() -> None:
    result = paired(only=lambda new, old: new["return_type"] == old["return_type"] == "give_answer")
    assert result.tasks == 449
    assert 100 * result.difference == pytest.approx(-1.60, abs=0.01)
    assert not result.significant

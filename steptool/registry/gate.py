"""The gate: does the evidence allow a candidate to become champion? Pure."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from steptool.config.settings import PromoteParams
from steptool.core.errors import NotComparable
from steptool.core.types import Frozen
from steptool.evaluation.compare import Comparison, compare
from steptool.evaluation.metrics import Evaluation, Primary
from steptool.registry.receipts import REASON_LENGTH, Receipt, shown

RATE: Mapping[Primary, str] = {"solved": "pass rate", "grounded": "share of grounded answers"}
WITHOUT_VERDICT = (
    "so nothing can prove that more tasks are solved: give tasks of that split a check, or take an annotator that can "
    "tell, then evaluate and register again; or set promote.measure: grounded in params.yaml, which proves less"
)


class Gate(Frozen):
    """What is asked of a candidate, and the statistics of its comparison."""

    limits: PromoteParams
    resamples: int
    confidence: float
    """Of all `limits.looks` verdicts together."""
    seed: int


def decide(
    gate: Gate, candidate: Evaluation, champion: Evaluation | None, *, baseline: Evaluation | None = None
) -> Receipt:
    """May `candidate` become champion?

    By `measure` (tasks solved, or grounded answers) it must be above 0, reach `min_pass_rate` and `min_finish_rate`,
    and have the whole bootstrap interval of its paired difference from `champion` above `margin`; where there is no
    champion, of its difference from `baseline`.
    Both evaluations must be sound and measured under the same conditions.

    Every test is written so that NaN fails it.
    """
    limits, measure = gate.limits, gate.limits.measure
    rate = candidate.rate(measure)
    confidence = 1 - (1 - gate.confidence) / limits.looks
    against = champion or baseline
    whom = "the champion" if champion else shown(baseline.name, 80) if baseline else ""
    faults = _faults("the candidate", candidate, limits)
    if against is not None:
        faults += _faults(whom, against, limits)
    refusals = faults or [
        f"{what} {found:.1%} is below the {least:.1%} of promote.{setting}"
        for what, setting, found, least in (
            (RATE[measure], "min_pass_rate", rate or 0.0, limits.min_pass_rate),
            ("finish rate", "min_finish_rate", candidate.finish_rate, limits.min_finish_rate),
        )
        if not found >= least
    ]
    if not faults and not (rate or 0.0) > 0:
        refusals.append("it solved no task" if measure == "solved" else "no answer of it is grounded")
    comparison: Comparison | None = None
    evidence = ""
    if against is None:
        refusals.append(
            "there is no champion, and it was compared with nothing: name a baseline for it under `compare` in "
            "params.yaml, and register it again"
        )
    elif not faults:
        try:
            comparison = compare(
                candidate,
                against,
                resamples=gate.resamples,
                confidence=confidence,
                seed=gate.seed,
                measure=measure,
            )
        except NotComparable as error:
            refusals.append(f"cannot be compared with {whom}: {error.found}")
        else:
            evidence = (
                f"{comparison.difference:+.1%}{'' if measure == 'solved' else ' grounded answers'} against {whom}, "
                f"{100 * confidence:.4g}% interval [{comparison.low:+.1%}, {comparison.high:+.1%}] over "
                f"{comparison.drawn}"
            )
            if (without := len(candidate.solved) - comparison.tasks) > 0:
                evidence += f" ({without} more have no verdict)"
            if not comparison.low > limits.margin:
                refusals.append(f"{evidence} does not lie above the margin of {limits.margin:+.1%}")
            elif limits.margin >= 0 and not comparison.p_value < 1 - confidence:
                # Of a handful of tasks that differ, a bootstrap makes too narrow an interval: 4 won, 0 lost is chance.
                tasks = f"{comparison.won} won and {comparison.lost} lost"
                refusals.append(f"{evidence}, but of {tasks} the exact test says p = {comparison.p_value:.3g}")
    said = evidence if champion else f"the first champion: {evidence}"
    return Receipt(
        verdict="refused" if refusals else "promoted",
        reasons=tuple(reason[:REASON_LENGTH] for reason in refusals or [said]),
        pass_rate=candidate.pass_rate,
        finish_rate=candidate.finish_rate,
        grounded=rate if measure == "grounded" else None,
        champion_pass_rate=champion.pass_rate if champion else None,
        baseline_pass_rate=baseline.pass_rate if baseline and not champion else None,
        comparison=comparison,
        limits=limits,
    )


def _faults(whose: str, evaluation: Evaluation, limits: PromoteParams) -> list[str]:
    """Why `evaluation` is no evidence; empty where it is."""
    if not evaluation.solved:
        return [f"the evaluation of {whose} holds no task"]
    stated, values = evaluation.rate(limits.measure), evaluation.values(limits.measure)
    if stated is None or not values:
        return [f"no task of the evaluation of {whose} has a verdict, {WITHOUT_VERDICT}"]
    what = RATE[limits.measure]
    rates = {
        what: stated,
        "finish rate": evaluation.finish_rate,
        "broken share": evaluation.broken,
        **{f"verdict on task {shown(task, 80)}": value for task, value in values.items()},
    }
    if wrong := [f"{name} of {value}" for name, value in rates.items() if not 0 <= value <= 1]:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return [f"the evaluation of {whose} has a {wrong[0]}{more}, which is not between 0 and 1"]
    mean = fmean(values.values())
    if not abs(stated - mean) < 1e-6:
        said = f"a {what} of {stated:.1%}, but its verdicts have a mean of {mean:.1%}"
        return [f"the evaluation of {whose} states {said}"]
    if not evaluation.broken <= limits.max_broken:
        lost = f"{evaluation.broken:.1%} of the attempts of {whose}"
        return [
            f"faults of the engine or the world ended {lost}, above the {limits.max_broken:.1%} of promote.max_broken"
        ]
    return []

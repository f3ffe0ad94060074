"""Compares two policies task by task, and only if both were measured under equal conditions. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator
from scipy.stats import binomtest, permutation_test

from steptool.core.errors import NotComparable
from steptool.core.types import Frozen
from steptool.evaluation.bootstrap import bootstrap_mean, sums
from steptool.evaluation.metrics import ALL, Evaluation, Primary, Rate, groups_in_order

Change = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False, strict=True)]
"""Of a rate."""


OF_AN_ENDPOINT = ("format", "engine", "dtype", "temperature", "top_p", "max_step_tokens", "max_tokens")
"""Conditions that differ between a policy here and one behind an endpoint, which has its own tokens and speaks by
messages. World, tasks, search and the budget of actions are equal all the same."""

DIGITS = 9
"""After the point: what differs less is equal, but for how a computer adds up thirds."""


class Difference(Frozen):
    """Candidate minus baseline over one group of tasks; rates as fractions, not percent."""

    difference: Change
    low: Change
    high: Change
    p_value: Rate
    """Two-sided p-value for no difference: a test that flips the sign of whole clusters, exact where those that differ
    do so by the same amount. Of tasks that are each won, lost or tied it is the sign test (McNemar)."""
    won: int = Field(ge=0)
    """Tasks that the candidate did better."""
    lost: int = Field(ge=0)
    tied: int = Field(ge=0)
    clusters: int | None = Field(default=None, ge=1)
    """How many the tasks are of, where they are fewer than the tasks; else None."""

    @model_validator(mode="after")
    def _is_over_tasks(self) -> Self:
        if self.tasks == 0:
            raise ValueError("compares no tasks")
        return self

    @property
    def tasks(self) -> int:
        return self.won + self.lost + self.tied

    @property
    def drawn(self) -> str:
        """What an interval draws, in words: `120 tasks`, or `120 tasks of 12 clusters`."""
        tasks = f"{self.tasks} task{'' if self.tasks == 1 else 's'}"
        if self.clusters is None:
            return tasks
        return f"{tasks} of {self.clusters} cluster{'' if self.clusters == 1 else 's'}"

    @property
    def win_rate(self) -> float:
        """Share of tasks won, a tie counting half; 0.5 says no difference."""
        return (self.won + self.tied / 2) / self.tasks

    @property
    def significant(self) -> bool:
        """The whole interval lies on one side of zero, and the exact test agrees. If only a few tasks differ, the
        interval of a bootstrap is too narrow (4 won and 0 lost of 300 give [0.3, 2.7] points, and p = 0.125)."""
        return (self.low > 0 or self.high < 0) and self.p_value < 0.05


class Comparison(Difference):
    """The difference over all tasks that have a value under both, and over each group with such tasks."""

    candidate: str
    baseline: str
    measure: Primary = "solved"
    """What the difference is of."""
    confidence: float = Field(gt=0, lt=1)
    groups: Annotated[dict[str, Difference], AfterValidator(groups_in_order)] = Field(min_length=1)


def compare(
    candidate: Evaluation,
    baseline: Evaluation,
    *,
    resamples: int,
    confidence: float,
    seed: int,
    measure: Primary = "solved",
) -> Comparison:
    """Paired difference of a measure, with a bootstrap interval over the tasks that have a value of it under both.
    Tasks of the same cluster are drawn together.

    Raises NotComparable, listing every difference, unless both were measured under equal conditions on the same tasks;
    and where no task has a value under both.
    """
    refuse_unless_comparable(candidate, baseline)
    ours, theirs = candidate.values(measure), baseline.values(measure)
    if not ours.keys() & theirs.keys():
        raise NotComparable(
            f"no task has a verdict under both {candidate.name} and {baseline.name}",
            fix="give tasks a check, take an annotator that can tell, or compare grounded answers",
        )
    rng = np.random.default_rng(seed)
    groups = {}
    for group, tasks in baseline.groups.items():
        both = [task for task in tasks if task in ours and task in theirs]
        if both:
            groups[group] = paired_difference(
                np.array([ours[task] - theirs[task] for task in both]),
                resamples=resamples,
                confidence=confidence,
                rng=rng,
                clusters=baseline.clusters(both),
            )
    return Comparison(
        **groups[ALL].model_dump(),
        candidate=candidate.name,
        baseline=baseline.name,
        measure=measure,
        confidence=confidence,
        groups=groups,
    )


def refuse_unless_comparable(candidate: Evaluation, baseline: Evaluation) -> None:
    """Raise NotComparable, listing every difference but the policies; against an endpoint, but what is its own, too."""
    is_elsewhere = candidate.conditions.is_endpoint or baseline.conditions.is_endpoint
    found = candidate.conditions.differences(baseline.conditions, apart=OF_AN_ENDPOINT if is_elsewhere else ())
    for name in ("annotator", "attempts", "split"):
        ours, theirs = getattr(candidate, name), getattr(baseline, name)
        if ours != theirs:
            found.append(f"{name}: {ours} against {theirs}")
    found += _task_differences(candidate, baseline)
    if found:
        raise NotComparable(
            f"{candidate.name} and {baseline.name} were measured under different conditions:\n  " + "\n  ".join(found),
            fix="evaluate both again under equal conditions: `dvc repro --force --single-item evaluate`",
        )


def _task_differences(candidate: Evaluation, baseline: Evaluation) -> list[str]:
    found = []
    for one, other in ((candidate, baseline), (baseline, candidate)):
        if extra := sorted(one.solved.keys() - other.solved.keys()):
            more = ", …" if len(extra) > 3 else ""
            found.append(f"{len(extra)} tasks only in {one.name}: {', '.join(extra[:3])}{more}")
    shared = candidate.solved.keys() & baseline.solved.keys()
    if moved := sorted(task for task in shared if candidate.group_of[task] != baseline.group_of[task]):
        first = moved[0]
        found.append(f"group of task {first}: {candidate.group_of[first]} against {baseline.group_of[first]}")
    if not found and candidate.tasks_hash != baseline.tasks_hash:
        hashes = f"{candidate.tasks_hash} against {baseline.tasks_hash}"
        found.append(f"tasks_hash: {hashes}; their queries, tools or answers are not the same")
    return found


def paired_difference(
    paired: NDArray[np.float64],
    *,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
    clusters: Sequence[Hashable] | None = None,
) -> Difference:
    """paired: [tasks], candidate minus baseline of each task, in [-1, 1]; at least one task. clusters: [tasks], the
    cluster of each; None where each is its own."""
    difference, low, high = bootstrap_mean(
        paired, resamples=resamples, confidence=confidence, rng=rng, clusters=clusters
    )
    summed = sums(paired[None], clusters)[0]
    won, lost = int(np.sum(paired > 0)), int(np.sum(paired < 0))
    return Difference(
        difference=difference,
        low=low,
        high=high,
        p_value=_p_value(summed, resamples, rng),
        won=won,
        lost=lost,
        tied=len(paired) - won - lost,
        clusters=len(summed) if len(summed) < len(paired) else None,
    )


def _p_value(summed: NDArray[np.float64], resamples: int, rng: np.random.Generator) -> float:
    """summed: [clusters], the paired differences of each cluster's tasks, summed."""
    amounts = np.abs(np.round(summed, DIGITS))
    discordant = summed[amounts > 0]  # ties say nothing of the direction
    if len(discordant) <= 1:
        return 1.0  # one is as likely either way
    if len(np.unique(amounts[amounts > 0])) == 1:
        return float(binomtest(int(np.sum(discordant > 0)), len(discordant), 0.5).pvalue)
    # scipy enumerates all 2^n sign flips where they are no more than `resamples`.
    result = permutation_test(
        (discordant,), _mean, permutation_type="samples", vectorized=True, n_resamples=resamples, batch=1_000, rng=rng
    )
    return float(result.pvalue)


def _mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Rounded, so that flips that give the same mean are ties of the one that was found. The values themselves are not:
    two thirds, rounded, are not twice one third."""
    rounded: NDArray[np.float64] = values.mean(axis=axis).round(DIGITS)
    return rounded

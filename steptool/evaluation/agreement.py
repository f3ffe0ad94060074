"""How far two judges of the same attempts agree: accuracy, Cohen's κ, and the table of both. Pure.

                  other: solved   unsolved
    one: solved         a             b            accuracy (a + d) / n
         unsolved       c             d            κ = (accuracy − chance) / (1 − chance)

    chance = (a + b)(a + c)/n² + (c + d)(b + d)/n²

Intervals are bootstrapped over tasks, since attempts at one task are judged alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from steptool.core.types import Frozen
from steptool.evaluation.bootstrap import Estimate, quantiles, resampled_means

Floats = NDArray[np.float64]
ALL = "all"


class Pair(Frozen):
    """What two judges say of one attempt, from 0 to 1; None where one cannot tell."""

    task: str
    group: str
    one: float | None
    other: float | None


class Agreement(Frozen):
    """Of two judges, over the attempts on which both have a verdict."""

    both: int
    """Attempts that both call solved."""
    one_only: int
    other_only: int
    neither: int
    unknown: int = Field(default=0, ge=0)
    """Attempts on which one or both have no verdict; they are in none of the other numbers."""
    accuracy: Estimate
    kappa: Estimate
    """None where there is nothing to measure, or both always say the same one thing."""
    confidence: Annotated[float, Field(gt=0, lt=1)]

    @property
    def attempts(self) -> int:
        return self.both + self.one_only + self.other_only + self.neither


def agreements(
    pairs: Iterable[Pair], *, threshold: float, resamples: int, confidence: float, seed: int
) -> dict[str, Agreement]:
    """Group → agreement, `all` last. A verdict above `threshold` is solved."""
    found = list(pairs)
    groups: dict[str, list[Pair]] = {}
    for pair in found:
        groups.setdefault(pair.group, []).append(pair)
    order = {name: groups[name] for name in sorted(groups)} if len(groups) > 1 else {}
    rng = np.random.default_rng(seed)
    return {
        name: agreement(own, threshold=threshold, resamples=resamples, confidence=confidence, rng=rng)
        for name, own in {**order, ALL: found}.items()
    }


def agreement(
    pairs: Sequence[Pair], *, threshold: float, resamples: int, confidence: float, rng: np.random.Generator
) -> Agreement:
    cells: dict[str, list[float]] = {}
    unknown = 0
    for pair in pairs:
        if pair.one is None or pair.other is None:
            unknown += 1
            continue
        cell = 2 * (pair.one <= threshold) + (pair.other <= threshold)
        cells.setdefault(pair.task, [0.0] * 4)[cell] += 1
    table = np.array(list(cells.values())).reshape(len(cells), 4).T
    total = table.sum(axis=1)
    both, one_only, other_only, neither = (int(count) for count in total)
    accuracy = kappa = Estimate(value=None)
    if len(cells):
        drawn = resampled_means(table, resamples=resamples, rng=rng)
        accuracy = _estimate(accuracy_of(total[None])[0], accuracy_of(drawn), confidence)
        kappa = _estimate(kappa_of(total[None])[0], kappa_of(drawn), confidence)
    return Agreement(
        both=both,
        one_only=one_only,
        other_only=other_only,
        neither=neither,
        unknown=unknown,
        accuracy=accuracy,
        kappa=kappa,
        confidence=confidence,
    )


def accuracy_of(tables: Floats) -> Floats:
    """tables: [n, 4], counts of both, one only, other only, neither."""
    return (tables[:, 0] + tables[:, 3]) / tables.sum(axis=1)


def kappa_of(tables: Floats) -> Floats:
    """NaN where chance alone agrees always."""
    a, b, c, d = (tables / tables.sum(axis=1, keepdims=True)).T
    chance = (a + b) * (a + c) + (c + d) * (b + d)
    left = 1 - chance
    return np.divide(a + d - chance, left, out=np.full(len(tables), np.nan), where=left > 1e-12)


def auc_of(scores: Floats, is_solved: NDArray[np.bool_]) -> float | None:
    """Probability that a solved attempt has the higher score, ties counting half; None where all are of one kind."""
    solved, others = np.sort(scores[is_solved]), np.sort(scores[~is_solved])
    if not len(solved) or not len(others):
        return None
    below = np.searchsorted(others, solved, "left") + np.searchsorted(others, solved, "right")
    return float(below.sum() / (2 * len(solved) * len(others)))


def _estimate(value: float, drawn: Floats, confidence: float) -> Estimate:
    if np.isnan(value):
        return Estimate(value=None)
    low, high = quantiles(drawn[~np.isnan(drawn)], confidence)
    return Estimate(value=float(value), low=low, high=high)

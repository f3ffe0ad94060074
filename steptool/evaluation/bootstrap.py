"""Percentile bootstrap over tasks, for means and for ratios of means (Efron & Tibshirani 1993, ch. 13). Pure.

Tasks of the same cluster are drawn together (the cluster bootstrap, Davison & Hinkley 1997, sec. 3.8): ten paraphrases
that are solved or failed together say hardly more than one.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from steptool.core.types import Frozen

Floats = NDArray[np.float64]
Amount = Annotated[float, Field(allow_inf_nan=False, strict=True)]

CHUNK = 1_000
"""Resamples drawn at once: bounds memory to CHUNK × tasks counts."""


class Estimate(Frozen):
    """A number with its interval. All three are None if there was nothing to measure."""

    value: Amount | None
    low: Amount | None = None
    high: Amount | None = None

    @property
    def numbers(self) -> list[float]:
        """Those that are there."""
        return [number for number in (self.value, self.low, self.high) if number is not None]


def sums(values: Floats, clusters: Sequence[Hashable] | None) -> Floats:
    """Sums of values [rows, tasks] over the tasks of each cluster: [rows, clusters], in the order of their first tasks.
    clusters: [tasks], the cluster of each; None where each task is its own, so that nothing is summed."""
    if clusters is None:
        return values
    place = {cluster: column for column, cluster in enumerate(dict.fromkeys(clusters))}
    found = np.zeros((len(place), len(values)))
    np.add.at(found, np.array([place[cluster] for cluster in clusters], dtype=int), values.T)
    return found.T


def bootstrap_ratios(
    numerators: Floats,
    denominators: Floats,
    *,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
    clusters: Sequence[Hashable] | None = None,
) -> list[Estimate]:
    """Estimate Σ numerator / Σ denominator of each row, resampling the columns with replacement.

    numerators, denominators: [metrics, tasks]. A plain mean over tasks has a denominator of ones. All
    rows share the same resamples: one draw of tasks moves every metric together.
    clusters: [tasks], the cluster of each task; None draws each task for itself.
    confidence: in (0, 1); 0.95 gives the 2.5 % and 97.5 % quantiles.
    A row whose denominator is all zero yields Estimate(None).
    """
    metrics, tasks = numerators.shape
    if tasks == 0:
        return [Estimate(value=None)] * metrics
    resampled = _resample(sums(numerators, clusters), sums(denominators, clusters), resamples, rng)
    values = _ratio(numerators.sum(axis=1), denominators.sum(axis=1))
    estimates = []
    for value, drawn in zip(values, resampled.T, strict=True):
        if np.isnan(value):
            estimates.append(Estimate(value=None))
            continue
        low, high = quantiles(drawn[~np.isnan(drawn)], confidence)
        estimates.append(Estimate(value=float(value), low=low, high=high))
    return estimates


def bootstrap_mean(
    values: Floats,
    *,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
    clusters: Sequence[Hashable] | None = None,
) -> tuple[float, float, float]:
    """Mean of values [tasks], at least one, with the ends of its interval. clusters: as for `bootstrap_ratios`."""
    counts = np.ones((1, len(values)))
    resampled = _resample(sums(values[None], clusters), sums(counts, clusters), resamples, rng)
    return float(values.mean()), *quantiles(resampled[:, 0], confidence)


def resampled_means(values: Floats, *, resamples: int, rng: np.random.Generator) -> Floats:
    """Means of resamples [resamples, rows] of values [rows, tasks], at least one task; all rows share the resamples."""
    return _resample(values, np.ones_like(values), resamples, rng)


def _resample(numerators: Floats, denominators: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Resampled ratios [resamples, metrics]; each column is drawn for itself."""
    tasks = numerators.shape[1]
    chunks = []
    for start in range(0, resamples, CHUNK):
        rows = min(CHUNK, resamples - start)
        # A resample is how often it holds each task, so the sums of all resamples are one matrix product.
        drawn = rng.integers(tasks, size=(rows, tasks)) + tasks * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * tasks).reshape(rows, tasks).astype(np.float64)
        chunks.append(_ratio(weights @ numerators.T, weights @ denominators.T))
    return np.concatenate(chunks)


def quantiles(drawn: Floats, confidence: float) -> tuple[float, float]:
    """The ends of the interval of coverage `confidence`."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """numerator / denominator, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)

"""How the scores of steps go with the outcome, attempt against attempt at the same task. Pure.

    attempt   task   solved   success, summed   contribution, summed   steps
    1         a      1        2                 2                      3          within task a, less its means:
    2         a      0        2                 0                      3          (.5, 0, 1, 0) and (-.5, 0, -1, 0)

Two things are measured of each score, over all tasks together and with the differences to the task's own mean alone, so
that an easy task, where all is solved and much is called, counts for nothing by being easy:

    correlation   of the sum of the score over an attempt with its outcome
    weight        least squares of the outcome on all sums together: by how many solved tasks an attempt is better that
                  has one more of the score. Two scores that say the same are not paid twice.

The length is measured as a score that every step has: it is what one further step costs, where that can be told.

Intervals are 95 %, by a bootstrap over tasks, which knows of no clusters. A score whose interval is not above 0 gets
no weight. They are left out one by one, that with the smallest weight for its spread first, and the others measured
again: what two scores say together is then said by one of them.

Attempts without a verdict, and those that a fault ended, tell nothing. A call that succeeded before counts in no sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steptool.core.types import Frozen, ScoredTrajectory
from steptool.rewards.repeats import first_shares

Floats = NDArray[np.float64]
SOLVED, LENGTH = "solved", "length"
RESAMPLES = 1_000
ENOUGH = 10
"""Tasks whose attempts differ that an interval needs: a bootstrap over fewer is too narrow."""
EDGES = (2.5, 97.5)


class Interval(Frozen):
    value: float
    low: float
    high: float


class Evidence(Frozen):
    """What the outcomes say of one score."""

    name: str
    tasks: int
    """With attempts of which some are better and that differ in the score."""
    correlation: Interval | None
    """Within tasks, in [-1, 1]; None where fewer than ENOUGH tasks tell."""
    weight: float
    """In solved tasks per score, at least 0; for the length, what one step costs."""

    @property
    def costs(self) -> bool:
        """Whether the weight is taken off, not paid."""
        return self.name == LENGTH


@dataclass(frozen=True)
class Tally:
    """What one attempt says."""

    task: str
    attempt: str
    """Its id, which gives attempts an order."""
    solved: float
    sums: Mapping[str, float]
    """Of each score over the steps, and the number of steps."""


def tally(scored: ScoredTrajectory) -> Tally | None:
    """None where it tells nothing: without a verdict, or ended by a fault."""
    solved, trajectory = scored.solved, scored.trajectory
    if solved is None or trajectory.stop_reason.broken:
        return None
    sums: dict[str, float] = {LENGTH: float(len(trajectory.steps))}
    for own in paid_scores(scored):
        for name, value in own.items():
            sums[name] = sums.get(name, 0.0) + value
    return Tally(trajectory.task_id, trajectory.id, solved, sums)


def paid_scores(scored: ScoredTrajectory) -> list[dict[str, float]]:
    """Of each step: its scores by name, without the verdict, times the share of its calls that are new."""
    return [
        {name: share * (value or 0.0) for name, value in judgement.scores.items() if name != SOLVED}
        for share, judgement in zip(first_shares(scored), scored.judgements, strict=True)
    ]


@dataclass(frozen=True)
class Moments:
    """Sums of squares and products within each task: [tasks, K, K] of the scores, [tasks, K] with the outcome, [tasks]
    of the outcome. The length counts negatively, so that a weight of at least 0 makes it cost."""

    names: tuple[str, ...]
    xx: Floats
    xy: Floats
    yy: Floats

    def of(self, kept: Sequence[str]) -> Moments:
        at = [self.names.index(name) for name in kept]
        return Moments(tuple(kept), self.xx[:, at][:, :, at], self.xy[:, at], self.yy)


def moments(tallies: Iterable[Tally]) -> Moments:
    """The same for the same attempts in any order."""
    by_task: dict[str, list[Tally]] = {}
    for each in tallies:
        by_task.setdefault(each.task, []).append(each)
    names = tuple(sorted({name for attempts in by_task.values() for each in attempts for name in each.sums}))
    signs = np.array([-1.0 if name == LENGTH else 1.0 for name in names])
    rows = []
    for _, attempts in sorted(by_task.items()):
        if len(attempts) < 2:
            continue
        ordered = sorted(attempts, key=lambda each: each.attempt)
        x = signs * np.array([[each.sums.get(name, 0.0) for name in names] for each in ordered])
        y = np.array([each.solved for each in ordered])
        x, y = x - x.mean(axis=0), y - y.mean()
        rows.append((x.T @ x, x.T @ y, y @ y))
    tasks, k = len(rows), len(names)
    return Moments(
        names,
        np.array([row[0] for row in rows]).reshape(tasks, k, k),
        np.array([row[1] for row in rows]).reshape(tasks, k),
        np.array([row[2] for row in rows]).reshape(tasks),
    )


def evidence_of(found: Moments) -> tuple[Evidence, ...]:
    """Of every score, by name."""
    drawn, paid = _drawn(len(found.yy)), weights(found)
    return tuple(
        Evidence(
            name=name,
            tasks=int(_tells(found, index).sum()),
            correlation=_correlation(found, index, drawn),
            weight=paid.get(name, 0.0),
        )
        for index, name in enumerate(found.names)
    )


def weights(found: Moments) -> dict[str, float]:
    """Of the scores that the evidence is for, each above 0; none where fewer than ENOUGH tasks tell."""
    drawn = _drawn(len(found.yy))
    kept = [name for index, name in enumerate(found.names) if _tells(found, index).sum() >= ENOUGH]
    while kept:
        own = found.of(kept)
        values = _least_squares(own.xx.sum(axis=0), own.xy.sum(axis=0))
        resampled = _least_squares(np.asarray(np.tensordot(drawn, own.xx, 1)), drawn @ own.xy)
        low = np.percentile(resampled, EDGES[0], axis=0)
        if np.all(low > 0):
            return dict(zip(kept, values.tolist(), strict=True))
        spread = resampled.std(axis=0) + 1e-12
        doubtful = np.where(low > 0, np.inf, values / spread)
        kept.pop(int(np.argmin(doubtful)))
    return {}


def _tells(found: Moments, index: int) -> NDArray[np.bool_]:
    """[tasks] whether the outcome and the score differ between its attempts."""
    squares: Floats = found.xx[:, index, index]
    return (found.yy > 1e-12) & (squares > 1e-12)


def _correlation(found: Moments, index: int, drawn: Floats) -> Interval | None:
    if _tells(found, index).sum() < ENOUGH:
        return None
    sign = -1.0 if found.names[index] == LENGTH else 1.0
    sums = np.stack([sign * found.xy[:, index], found.xx[:, index, index], found.yy], axis=1)
    value, resampled = cosine(sums.sum(axis=0)), cosine(drawn @ sums)
    return interval_of(float(value), resampled)


def interval_of(value: float, draws: Floats) -> Interval:
    """Of 95 %, by what each draw of a bootstrap gave."""
    low, high = np.percentile(draws, EDGES)
    return Interval(value=value, low=float(low), high=float(high))


def cosine(sums: Floats, rounding: float = 0.0) -> Floats:
    """[..., 3] of xy, xx, yy -> [...], in [-1, 1]; 0 where nothing varies, up to `rounding` in the root of xx yy."""
    scale = np.sqrt(sums[..., 1] * sums[..., 2])
    return np.divide(sums[..., 0], scale, out=np.zeros_like(scale), where=scale > rounding)


def _least_squares(xx: Floats, xy: Floats) -> Floats:
    """[..., K, K] and [..., K] -> [..., K]; the shortest solution where scores are the same but for a factor."""
    scale = np.sqrt(np.diagonal(xx, axis1=-2, axis2=-1))
    scale = np.where(scale > 0, scale, 1.0)
    inverse = np.linalg.pinv(xx / (scale[..., :, None] * scale[..., None, :]), rcond=1e-9, hermitian=True)
    return np.asarray((inverse @ (xy / scale)[..., None])[..., 0] / scale)


def _drawn(tasks: int) -> Floats:
    """[RESAMPLES, tasks] how often a resample holds each task."""
    rng = np.random.default_rng(0)
    drawn = [np.bincount(rng.integers(tasks, size=tasks), minlength=tasks) for _ in range(RESAMPLES)] if tasks else []
    return np.array(drawn, dtype=np.float64).reshape(RESAMPLES, tasks)

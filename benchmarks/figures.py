"""What the cells of a comparison say, as tables in Markdown. Pure but for the reading of cells.

Policies of one corner are compared task by task within each seed, and the seeds then count alike. An interval draws
seeds, and tasks within each; tasks of one cluster are drawn together. The p-value is that of an exact sign test over
the clusters of all seeds, each task its own where its world names none; a cluster that several seeds share counts once,
by whether the candidate did better at it over these seeds together. It speaks of the policies that were trained, not of
what other seeds would bring: tasks are drawn there, trainings are not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from benchmarks.cells import SFT, Cell
from steptool.core.errors import DataError, NotComparable
from steptool.core.storage import read_record
from steptool.evaluation.bootstrap import sums
from steptool.evaluation.compare import DIGITS, refuse_unless_comparable
from steptool.evaluation.metrics import ALL, Cluster, Evaluation
from steptool.report.wording import number, p_number, percent, points

START = "start"
"""The corner of the policies that all others start from; `start-long` of those of a profile."""
RESAMPLES = 10_000
OUTCOME_ONLY = ("rft", "grpo", "ppo_final", "dpo", "dpo_steps", "outcome")
"""Variants that learn from nothing but how attempts ended, and what they cost."""
BASELINES = (SFT, "rft", "grpo", "ppo_final")

Array = NDArray[np.float64]
Setting = tuple[str, str, int]
"""Corner, split, and most actions of a measured attempt."""


@dataclass(frozen=True)
class Paired:
    """Candidate minus baseline, as fractions, over seeds that have both."""

    by_seed: dict[int, float]
    difference: float
    low: float
    high: float
    p_value: float
    won: int
    lost: int

    def __str__(self) -> str:
        p_value = p_number(self.p_value)
        relation = "p " if p_value.startswith("<") else "p = "
        low, high = points(self.low, 1), points(self.high, 1)
        return f"{points(self.difference, 1, sign=True)} [{low}, {high}], {relation}{p_value}"


def paired(candidates: Mapping[int, Evaluation], baselines: Mapping[int, Evaluation]) -> Paired | None:
    """Of policies by their seed; None where no seed has both. Raises NotComparable as `compare` does."""
    differences: list[Sample] = []
    seeds = tuple(sorted(candidates.keys() & baselines.keys()))
    by_cluster: dict[tuple[str, Cluster], float] = defaultdict(float)
    for seed in seeds:
        own = by_task(candidates[seed], baselines[seed])
        differences.append(Sample.of(candidates[seed], own))
        for task, value in own.items():
            by_cluster[candidates[seed].tasks_hash, candidates[seed].cluster(task)] += value
    if not differences:
        return None
    drawn = resampled(differences, np.random.default_rng(0))
    won, lost = (sum(sign * round(each, DIGITS) > 0 for each in by_cluster.values()) for sign in (1, -1))
    return Paired(
        by_seed={seed: each.mean for seed, each in zip(seeds, differences, strict=True)},
        difference=float(np.mean([each.mean for each in differences])),
        low=float(np.quantile(drawn, 0.025)),
        high=float(np.quantile(drawn, 0.975)),
        p_value=float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0,
        won=won,
        lost=lost,
    )


def by_task(candidate: Evaluation, baseline: Evaluation) -> dict[str, float]:
    """Candidate minus baseline, of the tasks that have a verdict under both. Raises NotComparable as `compare` does."""
    refuse_unless_comparable(candidate, baseline)
    ours, theirs = candidate.values("solved"), baseline.values("solved")
    return {task: ours[task] - theirs[task] for task in ours if task in theirs}


@dataclass(frozen=True)
class Sample:
    """Values of tasks by their clusters, which are drawn whole."""

    sums: Array
    counts: Array

    @classmethod
    def of(cls, measured: Evaluation, values: Mapping[str, float]) -> Sample:
        """values: by task."""
        clusters = measured.clusters(list(values))
        each, ones = np.array([list(values.values())]), np.ones((1, len(values)))
        return cls(sums(each, clusters)[0], sums(ones, clusters)[0])

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.counts.sum())


def resampled(by_seed: Sequence[Sample], rng: np.random.Generator) -> Array:
    """[RESAMPLES] means of as many seeds, drawn with replacement, each with clusters drawn with replacement."""
    count = len(by_seed)
    # Of each draw and each of its places, the mean that every seed would have there.
    drawn = [
        rng.multinomial(len(own.sums), np.full(len(own.sums), 1 / len(own.sums)), size=(RESAMPLES, count))
        for own in by_seed
    ]
    means = np.stack([each @ own.sums / (each @ own.counts) for each, own in zip(drawn, by_seed, strict=True)])
    seeds = rng.integers(count, size=(RESAMPLES, count))
    chosen: Array = np.take_along_axis(means, seeds[None], axis=0)[0]
    return chosen.mean(axis=1)


def read_cells(folder: Path) -> list[Cell]:
    """Raises DataError where there is none, or one cannot be read."""
    found = [read_record(file, Cell) for file in sorted(folder.glob("*/*.json"))]
    if not found:
        raise DataError("no cells", where=str(folder), fix="run `python -m benchmarks.corners run` first")
    return found


@dataclass(frozen=True)
class Row:
    """A variant after so many rounds: its cells of all seeds."""

    name: str
    round: int
    cells: Mapping[int, Cell]

    @property
    def title(self) -> str:
        return self.name if self.round < 2 else f"{self.name}, round {self.round}"

    @property
    def evaluations(self) -> dict[int, Evaluation]:
        return {seed: cell.evaluation for seed, cell in self.cells.items() if cell.evaluation}

    @property
    def mean(self) -> float:
        """Pass rate; −1 where it was refused."""
        rates = [values.mean for values in self._solved]
        return float(np.mean(rates)) if rates else -1.0

    @property
    def _solved(self) -> list[Sample]:
        return [Sample.of(each, each.values("solved")) for each in self.evaluations.values()]

    @property
    def interval(self) -> str:
        """Of the mean, over seeds and tasks."""
        if not self._solved:
            return "–"
        low, high = np.quantile(resampled(self._solved, np.random.default_rng(0)), [0.025, 0.975])
        return f"{percent(self.mean, 1)} [{points(low, 1)}, {points(high, 1)}]"


def tables(cells: Sequence[Cell]) -> Iterator[str]:
    """Lines, a section for each corner, split and budget."""
    settings = dict.fromkeys(
        (cell.corner, cell.split, cell.calls) for cell in cells if not cell.corner.startswith(START)
    )
    for setting in settings:
        rows = rows_of(cells, setting)
        corner, split, calls = setting
        yield f"## {corner}: {split} tasks, at most {calls} actions"
        yield ""
        yield from _differences(rows)
        yield from _best(rows)
        yield from _groups(rows)
        yield from _habits(rows)
    yield from _costs(cells)


def rows_of(cells: Sequence[Cell], setting: Setting) -> list[Row]:
    """Of a corner, split and budget; its start first, then in the order of their files."""
    _, split, calls = setting
    there = [cell for cell in cells if (cell.corner, cell.split, cell.calls) == setting]
    starts = [cell for cell in cells if cell.corner.startswith(START) and (cell.split, cell.calls) == (split, calls)]
    # Those of the profile that the corner has: its policies were measured under its conditions.
    known = {cell.seed: cell.evaluation.conditions for cell in there if cell.evaluation}
    own = [cell for cell in starts if cell.evaluation and known.get(cell.seed) == cell.evaluation.conditions]
    rows: dict[tuple[str, int], dict[int, Cell]] = {}
    for cell in (*own, *there):
        rows.setdefault((cell.variant, cell.round), {})[cell.seed] = cell
    return [Row(name, round, found) for (name, round), found in rows.items()]


def _differences(rows: Sequence[Row]) -> Iterator[str]:
    seeds = sorted({seed for row in rows for seed in row.cells})
    baselines = [row for name in BASELINES for row in rows if row.name == name and row.round < 2]
    yield from table(
        ["variant", *(f"seed {seed}" for seed in seeds), "mean", *(f"− {row.name}" for row in baselines)],
        (
            [
                row.title,
                *(_rate(row.cells.get(seed)) for seed in seeds),
                row.interval,
                *(_paired(row, other) for other in baselines),
            ]
            for row in rows
        ),
    )


def _best(rows: Sequence[Row]) -> Iterator[str]:
    """Each variant that is not outcome-only against the best without step rewards, best first, for every number of
    rounds. What is not trained at all is without them too, or a corner in which outcomes teach harm would be won by
    doing nothing."""
    for round in sorted({row.round for row in rows if row.round}):
        others = [row for row in rows if row.name not in (*OUTCOME_ONLY, SFT) and row.round == round]
        known = [row for row in rows if row.name in (*OUTCOME_ONLY, SFT) and row.round <= round and row.evaluations]
        most = max((len(row.evaluations) for row in known), default=0)
        whole = [row for row in known if len(row.evaluations) == most]
        if not whole or all(row.name == SFT for row in known):
            continue
        best = max(whole, key=lambda row: row.mean)
        measured = sorted((row for row in others if row.evaluations), key=lambda row: -row.mean)
        found = [(row, each) for row in measured if (each := _compared(row, best)) is not None]
        if not found:
            continue
        yield f"The best without step rewards is {best.title} (chosen here, after looking). Against it:"
        yield ""
        together = holm([each.p_value for _, each in found])
        yield from table(
            ["variant", "points", "p, of all rows", "won, lost", "by seed"],
            (
                [row.title, str(each), p_number(p), f"{each.won}, {each.lost}", _by_seed(each)]
                for (row, each), p in zip(found, together, strict=True)
            ),
        )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's p-values: below .05 for any row that is not truly different in at most 5 % of all such tables."""
    found, worst = [1.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[index]))
        found[index] = worst
    return found


def _by_seed(found: Paired) -> str:
    return ", ".join(f"{seed}: {points(value, 1, sign=True)}" for seed, value in found.by_seed.items())


def _groups(rows: Sequence[Row]) -> Iterator[str]:
    """Pass rate by group of tasks, over seeds."""
    measured = [row for row in rows if row.evaluations]
    groups = dict.fromkeys(g for row in measured for each in row.evaluations.values() for g in each.metrics if g != ALL)
    if groups:
        yield from table(
            ["solved, by group", *groups],
            ([row.title, *(percent(_metric(row, "pass_rate", group)) for group in groups)] for row in measured),
        )


def _habits(rows: Sequence[Row]) -> Iterator[str]:
    titles = ["variant", "P(finish)", "P(solved, if finished)", "tool recall", "actions", "tokens", "repeat a call"]
    titles += ["out of budget", "give up", "actions before", "repeat before", "pay for length"]
    yield from table(titles, (_habit(row) for row in rows if row.evaluations))


def _habit(row: Row) -> list[str]:
    acted = [cell.acted for cell in row.cells.values() if cell.acted]
    trained = [cell.trained for cell in row.cells.values() if cell.trained]
    lengths = [each.paid_for_length for each in trained if each.paid_for_length is not None]
    return [
        row.title,
        percent(_metric(row, "finish_rate"), 1),
        percent(_metric(row, "pass_rate_finished"), 1),
        percent(_metric(row, "tool_recall"), 1),
        number(_metric(row, "calls_per_task"), 2),
        number(_metric(row, "tokens_per_task"), 1),
        percent(_mean([each.repeats for each in acted]), 1),
        percent(_mean([each.out_of_budget for each in acted]), 1),
        percent(_mean([each.gave_up for each in acted]), 1),
        number(_mean([each.sampled.calls for each in trained]), 2),
        percent(_mean([each.sampled.repeats for each in trained]), 1),
        number(_mean(lengths), 2),
    ]


def _costs(cells: Sequence[Cell]) -> Iterator[str]:
    """What the trainings took."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.trained and cell.round == 1:
            found.setdefault((cell.corner, cell.variant), []).append(cell)
    yield "## What the trainings took"
    yield ""
    yield from table(
        ["corner", "variant", "seconds", "action tokens trained", "of the attempts", "on"],
        (
            [
                *key,
                number(_mean([each.trained.seconds for each in own if each.trained]), 0),
                f"{_mean([each.trained.tokens for each in own if each.trained]) or 0:.0f}",
                f"{_mean([each.trained.sampled.attempts for each in own if each.trained]) or 0:.0f}",
                ", ".join(dict.fromkeys(each.device for each in own)),
            ]
            for key, own in found.items()
        ),
    )


def _rate(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return "refused" if cell.refused else percent(cell.evaluation.pass_rate if cell.evaluation else None, 1)


def _paired(row: Row, other: Row) -> str:
    if row is other or not row.evaluations.keys() & other.evaluations.keys():
        return ""
    found = _compared(row, other)
    return "measured otherwise" if found is None else str(found)


def _compared(row: Row, other: Row) -> Paired | None:
    """None where they were measured under different conditions, or on no seed both."""
    try:
        return paired(row.evaluations, other.evaluations)
    except NotComparable:
        return None


def _metric(row: Row, metric: str, group: str = ALL) -> float | None:
    """Mean over the seeds that have it."""
    values = [each.metrics[group][metric].value for each in row.evaluations.values() if group in each.metrics]
    return _mean([value for value in values if value is not None])


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def table(titles: Sequence[str], rows: Iterator[list[str]]) -> Iterator[str]:
    """Lines of Markdown."""
    yield f"| {' | '.join(titles)} |"
    yield f"|{' --- |' * len(titles)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""

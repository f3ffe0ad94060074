"""Measures judged runs: as they are published, and as they should be compared. Pure.

As published: each verdict pass gives a rate (Solved 1, Unsure ½, Unsolved 0; no answer is unsolved) over the requests
that the run's own file has; the mean over the passes, and their spread. Subsets are rolled up weighted by their
requests.

To compare: every rate is over one fixed list, the requests that any file has; a request that a file lacks is unsolved
and unfinished. Its calls nobody knows: they are counted where there is an attempt. At a budget of N calls an attempt
that made more than N counts as one that never answered: it did not have an answer by then. Two runs are compared
request by request (`compare.paired_difference`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from steptool.core.types import FINISH, Frozen
from steptool.evaluation.bootstrap import Estimate, bootstrap_ratios
from steptool.evaluation.compare import Change, Difference, paired_difference
from steptool.evaluation.judged.records import JudgedRun, RunFile
from steptool.evaluation.metrics import Rate, group_tasks

TOLERANCE = 1e-3
"""How far the verdicts' mean in a file may be from the one computed here before that is said: rounding."""


class Published(Frozen):
    """A rate over the requests of the run's own file."""

    mean: Rate
    spread: Change
    """Standard deviation over the verdict passes, divided by their number; 0 for one pass."""
    requests: int = Field(ge=1)


class Measured(Frozen):
    """Over the fixed list of requests."""

    solved: Estimate
    finished: Estimate
    solved_if_finished: Estimate
    solved_within: Estimate
    """Within the budget of calls."""
    finished_within: Estimate
    recall: Estimate
    """Share of a request's relevant functions that were called; over the requests whose relevant ones are known."""
    calls: Estimate
    """An attempt, `Finish` included; over the requests that the file has."""


class Run(Frozen):
    name: str
    passes: int
    """Verdicts of each attempt."""
    missing: int
    """Requests of the fixed list that its file lacks."""
    restated: int
    """Lines whose `solved` is not the mean of their verdicts."""
    longest: int
    """Calls of its longest attempt."""
    over_budget: int
    """Attempts with more calls than the budget."""
    published: dict[str, Published]
    """By subset, I1, I2, I3 and all."""
    measured: Measured


class Against(Frozen):
    """One run against its baseline; differences of the mean verdict."""

    run: str
    baseline: str
    difference: Difference
    """Without a budget."""
    within: Difference
    """Both cut at the budget of calls."""
    both_finish: Difference | None
    """Over the requests that both answer; None where there is none."""
    won: int = Field(ge=0)
    """Requests on which each verdict on the run is above each on the baseline."""
    lost: int = Field(ge=0)
    tied: int = Field(ge=0)
    """All others: equal, or the verdict passes disagree about which is better."""
    won_within: int = Field(ge=0)
    """As `won`, both cut at the budget."""
    lost_within: int = Field(ge=0)
    tied_within: int = Field(ge=0)

    @property
    def win_rate(self) -> float:
        """A tie counts half."""
        return (self.won + self.tied / 2) / (self.won + self.lost + self.tied)

    @property
    def win_rate_within(self) -> float:
        return (self.won_within + self.tied_within / 2) / (self.won_within + self.lost_within + self.tied_within)


class Figures(Frozen):
    """All that is computed from a folder of judged runs."""

    calls: int
    """The budget at which runs are cut."""
    requests: int
    confidence: float
    resamples: int
    seed: int
    groups: dict[str, int]
    """Requests of each subset, of I1, I2, I3 and of all."""
    runs: list[Run]
    against: list[Against]
    recall_of: int
    """Requests whose relevant functions are known."""


def figures(
    files: Sequence[RunFile],
    subset_of: Mapping[str, str],
    relevant: Mapping[str, frozenset[str]],
    pairs: Sequence[tuple[str, str]],
    *,
    calls: int,
    resamples: int,
    confidence: float,
    seed: int,
) -> Figures:
    """subset_of: request → subset, of the fixed list. relevant: request → functions that it needs, where that is known.
    pairs: names of runs to compare, the baseline second."""
    groups = group_tasks(subset_of)
    by_name = {file.name: file for file in files}
    return Figures(
        calls=calls,
        requests=len(subset_of),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
        groups={group: len(members) for group, members in groups.items()},
        runs=[
            _run(file, groups, list(subset_of), relevant, calls, resamples, confidence, np.random.default_rng(seed))
            for file in files
        ],
        against=[
            _against(by_name[one], by_name[other], list(subset_of), calls, resamples, confidence, seed)
            for one, other in pairs
        ],
        recall_of=sum(bool(relevant.get(id)) for id in subset_of),
    )


def pairs_of(files: Sequence[RunFile], against: str | None) -> list[tuple[str, str]]:
    """Each run with its baseline. `against`: a run, for all others; or a method, whose run by the same search it is.
    Where it is None, the method whose name holds `sft`, or the first one. A run without such a baseline has none."""
    methods = [file.method for file in files]
    if against is None:
        against = next((method for method in methods if "sft" in method.lower()), methods[0])
    named = [file for file in files if file.name == against]
    baselines = named or [file for file in files if file.method == against]
    return [
        (file.name, baseline.name)
        for file in files
        for baseline in baselines
        if file is not baseline and (named or file.search == baseline.search)
    ]


def _run(
    file: RunFile,
    groups: Mapping[str, Sequence[str]],
    ids: Sequence[str],
    relevant: Mapping[str, frozenset[str]],
    calls: int,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> Run:
    runs = file.runs
    return Run(
        name=file.name,
        passes=file.passes,
        missing=len(ids) - len(runs),
        restated=sum(_is_restated(run, file.passes) for run in runs.values()),
        longest=max((run.calls for run in runs.values()), default=0),
        over_budget=sum(run.calls > calls for run in runs.values()),
        published={
            group: found
            for group, members in groups.items()
            if (found := _published(file, [runs[id] for id in members if id in runs]))
        },
        measured=_measured(file, ids, relevant, calls, resamples, confidence, rng),
    )


def _is_restated(run: JudgedRun, passes: int) -> bool:
    return run.solved is not None and abs(run.solved - float(np.mean(run.values(passes)))) > TOLERANCE


def _published(file: RunFile, runs: Sequence[JudgedRun]) -> Published | None:
    if not runs:
        return None
    rates = np.array([run.values(file.passes) for run in runs]).mean(axis=0)
    return Published(mean=float(rates.mean()), spread=float(rates.std()), requests=len(runs))


def _measured(
    file: RunFile,
    ids: Sequence[str],
    relevant: Mapping[str, frozenset[str]],
    calls: int,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> Measured:
    runs = [file.runs.get(id) for id in ids]
    ones = np.ones(len(ids))
    solved, within = _verdicts(file, ids), _verdicts(file, ids, calls)
    finished = np.array([float(run is not None and run.finished) for run in runs])
    finished_within = np.array([float(run is not None and run.finished and run.calls <= calls) for run in runs])
    known = np.array([float(bool(relevant.get(id))) for id in ids])
    recalled = np.array([_recall(run, relevant.get(id)) for id, run in zip(ids, runs, strict=True)])
    there = np.array([float(run is not None) for run in runs])
    made = np.array([float(run.calls) if run else 0.0 for run in runs])
    rows = [
        (solved, ones),
        (finished, ones),
        (solved, finished),
        (within, ones),
        (finished_within, ones),
        (recalled, known),
        (made, there),
    ]
    estimates = bootstrap_ratios(
        np.array([row[0] for row in rows]),
        np.array([row[1] for row in rows]),
        resamples=resamples,
        confidence=confidence,
        rng=rng,
    )
    return Measured(**dict(zip(Measured.model_fields, estimates, strict=True)))


def _verdicts(file: RunFile, ids: Sequence[str], calls: int | None = None) -> np.ndarray:
    """Mean verdict of each request; 0 where the file lacks it, or its attempt made more calls than `calls`."""
    return np.array([float(np.mean(_values(file, id, calls))) for id in ids])


def _values(file: RunFile, id: str, calls: int | None) -> tuple[float, ...]:
    run = file.runs.get(id)
    if run is None or (calls is not None and run.calls > calls):
        return (0.0,) * file.passes
    return run.values(file.passes)


def _recall(run: JudgedRun | None, relevant: frozenset[str] | None) -> float:
    if run is None or not relevant:
        return 0.0
    called = {step.function for step in run.steps if step.name != FINISH}
    return len(called & relevant) / len(relevant)


def _against(
    one: RunFile, other: RunFile, ids: Sequence[str], calls: int, resamples: int, confidence: float, seed: int
) -> Against:
    def difference(of: Sequence[str], cut: int | None = None) -> Difference:
        paired = _verdicts(one, of, cut) - _verdicts(other, of, cut)
        rng = np.random.default_rng(seed)
        return paired_difference(paired, resamples=resamples, confidence=confidence, rng=rng)

    unlimited = difference(ids)
    is_cut = any(run.calls > calls for file in (one, other) for run in file.runs.values())
    both = [id for id in ids if all(id in file.runs and file.runs[id].finished for file in (one, other))]
    won, lost = _won(one, other, ids, None), _won(other, one, ids, None)
    won_within, lost_within = _won(one, other, ids, calls), _won(other, one, ids, calls)
    return Against(
        run=one.name,
        baseline=other.name,
        difference=unlimited,
        within=difference(ids, calls) if is_cut else unlimited,
        both_finish=difference(both) if both else None,
        won=won,
        lost=lost,
        tied=len(ids) - won - lost,
        won_within=won_within,
        lost_within=lost_within,
        tied_within=len(ids) - won_within - lost_within,
    )


def _won(one: RunFile, other: RunFile, ids: Sequence[str], calls: int | None) -> int:
    """Requests on which each verdict on `one` is above each on `other`."""
    return sum(min(_values(one, id, calls)) > max(_values(other, id, calls)) for id in ids)

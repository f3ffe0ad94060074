"""Fits the local judge to judged runs, and says how far it agrees with their verdicts on queries it has not seen.

    maximise  Σ y log p + (1 − y) log(1 − p) − (ridge/2) Σ weight²,     y the mean verdict of an attempt

The attempts that ended with an answer are fitted; one without an answer is unsolved by rule. The same runs give the
same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from steptool.annotators.local.features import NAMES, features
from steptool.annotators.local.model import DIGITS, Logistic, Weight
from steptool.core.errors import DataError
from steptool.core.types import Frozen, content_hash
from steptool.evaluation.agreement import auc_of, kappa_of
from steptool.traces.judged import JudgedAttempt

Floats = NDArray[np.float64]
RIDGE = 1.0
FOLDS = 10
FEWEST = 50
"""Attempts with an answer that a fit needs."""


class Agrees(Frozen):
    """With the majority of the verdicts."""

    auc: float | None
    kappa: float | None
    accuracy: float

    def __str__(self) -> str:
        auc, kappa = ("  —" if each is None else f"{each:.2f}" for each in (self.auc, self.kappa))
        return f"AUC {auc}   κ {kappa}   accuracy {self.accuracy:.1%}"


class Fitted(Frozen):
    model: Logistic
    by_query: Agrees
    """Each query judged by a model that has not seen it."""
    by_method: Agrees | None
    """Each method judged by a model that has seen none of its runs; None where only one gave answers."""
    among_votes: float | None
    """Mean κ between any two of the votes on an attempt; None where there is one vote."""


def fit(runs: Sequence[JudgedAttempt], source: str) -> Fitted:
    """`source`: what the runs are, in a few words. Raises DataError where they are too few, at too few queries,
    or all judged alike."""
    runs = [run for run in runs if run.votes]
    data = [(run, features(run.trajectory, run.task)) for run in runs if run.trajectory.answer is not None]
    solved = np.array([np.mean(run.votes) for run, _ in data])
    if len(data) < FEWEST or np.all(solved > 0.5) or np.all(solved <= 0.5):
        found = f"{len(data)} judged attempts end with an answer, {int((solved > 0.5).sum())} of them solved"
        raise DataError(found, where=source, fix=f"give at least {FEWEST}, some of them solved and some not")
    if len({_fold(run) for run, _ in data}) < 2:
        found = f"the attempts with an answer are at {len({run.task.id for run, _ in data})} queries"
        raise DataError(found, where=source, fix="give some at more queries, so that a part of them can be held out")
    table = np.array([own for _, own in data])
    by_query = _held_out(runs, data, table, solved, _fold)
    methods = {run.method for run, _ in data}
    by_method = _held_out(runs, data, table, solved, lambda run: run.method) if len(methods) > 1 else None
    among = _among_votes(runs)
    made: dict[str, str | int | float] = {
        "from": source,
        "runs": content_hash([[run.trajectory.id, run.votes] for run in runs]),
        "attempts": len(runs),
        "with_an_answer": len(data),
        "ridge": RIDGE,
        "kappa_by_query": round(by_query.kappa or 0.0, 3),
    }
    return Fitted(
        model=_fitted(table, solved).model_copy(update={"made": made}),
        by_query=by_query,
        by_method=by_method,
        among_votes=among,
    )


def _fitted(table: Floats, solved: Floats) -> Logistic:
    mean, scale = table.mean(axis=0), table.std(axis=0)
    scale[scale == 0] = 1.0
    x = np.column_stack([np.ones(len(table)), (table - mean) / scale])
    penalised = np.full(x.shape[1], RIDGE)
    penalised[0] = 0.0  # the bias

    def loss(weights: Floats) -> tuple[float, Floats]:
        z = x @ weights
        p = 1 / (1 + np.exp(-np.clip(z, -500, 500)))
        value = np.logaddexp(0, z).sum() - (solved * z).sum() + (penalised * weights**2).sum() / 2
        return float(value), x.T @ (p - solved) + penalised * weights

    options = {"ftol": 1e-13, "gtol": 1e-8, "maxiter": 1000}
    found = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options=options).x
    rounded = [round(float(each), DIGITS) for each in found]
    rows = zip(NAMES, rounded[1:], mean, scale, strict=True)
    weights = {
        name: Weight(weight=own, mean=round(float(m), DIGITS), scale=max(round(float(s), DIGITS), 10**-DIGITS))
        for name, own, m, s in rows
    }
    return Logistic(bias=rounded[0], weights=weights)


def _fold(run: JudgedAttempt) -> int:
    return int(content_hash(run.task.id), 16) % FOLDS


def _held_out(
    runs: Sequence[JudgedAttempt],
    data: Sequence[tuple[JudgedAttempt, list[float]]],
    table: Floats,
    solved: Floats,
    part_of: Callable[[JudgedAttempt], object],
) -> Agrees:
    """Over all `runs`, those without an answer being unsolved by rule; each part is judged by a fit to the others."""
    parts = [part_of(run) for run, _ in data]
    found: dict[str, float] = {}
    for part in dict.fromkeys(parts):
        own = np.array([each == part for each in parts])
        model = _fitted(table[~own], solved[~own])
        found |= {data[row][0].trajectory.id: model.probability(table[row].tolist()) for row in np.flatnonzero(own)}
    judged = np.array([found.get(run.trajectory.id, 0.0) for run in runs])
    return _agrees(judged, np.array([np.mean(run.votes) for run in runs]))


def _agrees(judged: Floats, verdicts: Floats) -> Agrees:
    ours, theirs = judged > 0.5, verdicts > 0.5
    kappa = _kappa(ours, theirs)
    return Agrees(auc=auc_of(judged, theirs), kappa=kappa, accuracy=float((ours == theirs).mean()))


def _kappa(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float | None:
    cells = np.array([[(one & other).sum(), (one & ~other).sum(), (~one & other).sum(), (~one & ~other).sum()]])
    value = float(kappa_of(cells.astype(np.float64))[0])
    return None if np.isnan(value) else value


def _among_votes(runs: Sequence[JudgedAttempt]) -> float | None:
    most = min(len(run.votes) for run in runs)
    votes = np.array([run.votes[:most] for run in runs]) > 0.5
    found = [_kappa(votes[:, one], votes[:, other]) for one, other in combinations(range(most), 2)]
    known = [each for each in found if each is not None]
    return float(np.mean(known)) if known else None

"""What policies do over several folds of a world, taken together: each fold holds out other tasks.

    for fold in 0 1 2 3 4; do
        python -m benchmarks.corners run --profile workbench --set world.fold=$fold --out .steptool/folds/$fold \
            --seeds 17 --corners exact-6 --variants sft,rft,potential
    done
    python -m benchmarks.folds .steptool/folds/*

In each folder a policy is trained on what is not held out there and measured on what is. Over all folders every task
counts once for each seed, and clusters of tasks are drawn together, as `evaluate` draws them. A variant is compared
with the policy that it started from, over the folders that have both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks import run
from benchmarks.cells import SFT
from benchmarks.figures import RESAMPLES, Row, by_task, read_cells, rows_of, table
from steptool.core.errors import InputError, NotComparable
from steptool.evaluation.compare import Difference, paired_difference
from steptool.evaluation.metrics import Cluster, Evaluation
from steptool.report.wording import difference_text, percent
from steptool.system.environment import be_quiet

Fold = tuple[str, int]
"""Name of a folder, and the seed."""


def folds(folders: Sequence[Path]) -> str:
    """Tables in Markdown, one for each corner, split and budget. Raises DataError for a folder without cells,
    InputError for two folders of the same name, which stands above their columns."""
    names = [folder.name for folder in folders]
    if repeated := [name for name in names if names.count(name) > 1]:
        says = f"{names.count(repeated[0])} folders are named {repeated[0]!r}"
        raise InputError(says, fix="name each folder once, and rename those that share a name")
    found: dict[tuple[str, str, int], dict[tuple[str, int], dict[Fold, Evaluation]]] = {}
    for folder in folders:
        cells = read_cells(folder / "cells")
        for setting in dict.fromkeys((cell.corner, cell.split, cell.calls) for cell in cells if cell.round):
            for row in rows_of(cells, setting):
                known = found.setdefault(setting, {}).setdefault((row.name, row.round), {})
                known |= {(folder.name, seed): each for seed, each in row.evaluations.items()}
    lines: list[str] = []
    for (corner, split, calls), rows in found.items():
        lines += [f"## {corner}: {split} tasks, at most {calls} actions", ""]
        start = rows.get((SFT, 0), {})
        there = list(dict.fromkeys(fold for row in rows.values() for fold in row))
        titles = ["variant", *(f"{folder}, seed {seed}" for folder, seed in there), f"− {SFT}, all of these"]
        lines += table(titles, (_line(Row(*key, {}).title, row, start, there) for key, row in rows.items()))
    return "\n".join(lines)


def _line(title: str, row: dict[Fold, Evaluation], start: dict[Fold, Evaluation], names: Sequence[Fold]) -> list[str]:
    rates = [percent(row[fold].pass_rate, 1) if fold in row else "" for fold in names]
    both = [fold for fold in names if fold in row and fold in start]
    if row is start or not both:
        return [title, *rates, ""]
    try:
        found = together([row[fold] for fold in both], [start[fold] for fold in both])
    except NotComparable:
        return [title, *rates, "measured otherwise"]
    return [title, *rates, f"{difference_text(found, 1)}; {found.won} won, {found.lost} lost, {found.drawn}"]


def together(candidates: Sequence[Evaluation], baselines: Sequence[Evaluation]) -> Difference:
    """Of policies, each against the one at its place, over the tasks of all. Raises NotComparable as `compare` does."""
    differences: list[float] = []
    clusters: list[Cluster] = []
    for candidate, baseline in zip(candidates, baselines, strict=True):
        own = by_task(candidate, baseline)
        differences += own.values()
        clusters += candidate.clusters(list(own))
    return paired_difference(
        np.array(differences), resamples=RESAMPLES, confidence=0.95, rng=np.random.default_rng(0), clusters=clusters
    )


def main(folders: Annotated[list[Path], typer.Argument(help="What `benchmarks.corners run --out` was given.")]) -> None:
    """Print what policies do over several folds, taken together."""
    print(folds(folders))


if __name__ == "__main__":
    be_quiet()
    run(main)

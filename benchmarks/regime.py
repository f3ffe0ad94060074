"""Which credit teaches most, where? Measured against the true value of every action, without training.

    python -m benchmarks.regime                         all cells, some minutes; what is there already is not made anew
    python -m benchmarks.regime --horizon 16 --verdict none
    python -m benchmarks.regime --credit mine=step_ppo:reward.use=paper,lambda_step=0.8

A scripted policy whose actions have known values (`benchmarks.scripted`) attempts tasks of the bundled world, in its
real sessions. The attempts are judged and rewarded by the code that training uses, and each credit says how much better
than its siblings each action was. Agreement is the sum of products of that with the true advantage, over the root of
the sums of squares, over all actions of all attempts: the cosine between what the credit says and what is true, in
[-1, 1]. At every horizon the policy solves SOLVED of its tasks, and it has a quarter more actions than the task needs.

    horizon     calls that a task needs, its answer included
    verdict     what training knows of the ends: exact; a share of the answers judged wrongly, the same answer alike;
                whether there was an answer; nothing. Who does not know the ends does not know the relevant tools
    attempts    that are compared with each other at each task. A single one is compared with those at other tasks
    credit      a method that has no critic, with its settings and those of the reward: step_ppo, grpo or gigpo

Intervals are 95 %, by a bootstrap over tasks. The attempts do not depend on the verdict or the credit, so that cells
can be compared task by task.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks import run
from benchmarks.credits import CREDITS, OUTCOME_ONLY, Credit, advantages, agreement, named
from benchmarks.habits import misjudged, without_verdict
from benchmarks.scripted import NOBODY, Attempted, Scripted, skill_for
from steptool.annotators.annotate import annotate_all
from steptool.annotators.rules import Rules
from steptool.core.errors import DataError, InputError
from steptool.core.revision import MEANS_NOTHING, code_revision
from steptool.core.storage import read_json, write_json
from steptool.core.types import Outcome, Reference, ScoredTrajectory, StopReason, Task, Trajectory, content_hash
from steptool.rewards.base import rewards_of
from steptool.training.episode import Episode, episode
from steptool.worlds.mini import MiniWorld

OUT = Path(".steptool/regime")
SHORT = 3
"""The horizon that the short tasks have, the others being lengths of long ones."""
BUDGETS = {SHORT: 5, 8: 10, 16: 20, 32: 40}
"""Horizon -> most actions of an attempt."""
ATTEMPTS = (1, 2, 4, 8)
WRONG = {"10% wrong": 0.1, "20% wrong": 0.2, "30% wrong": 0.3}
VERDICTS = ("exact", *WRONG, "answered", "none")
SEEDS = (17, 18, 19)
SOLVED = 0.45
"""Share of its tasks that the policy solves."""
DRAWN = 12
"""Short tasks that are made for each that is wanted: not all have the length SHORT."""
RESAMPLES = 2000
Floats = NDArray[np.float64]
Rewards = Sequence[Sequence[float]]
"""Of attempts, one a step."""


@dataclass(frozen=True)
class Cell:
    horizon: int
    verdict: str
    attempts: int
    credit: str
    tasks: int
    agreement: float | None
    """None where the credit refuses such data."""
    low: float | None
    high: float | None
    more_low: float | None
    """Interval of the difference to the best credit by outcomes alone; None for those."""
    more_high: float | None


@dataclass(frozen=True)
class Drawn:
    """All attempts at one horizon, ATTEMPTS[-1] at each task, in order of the tasks."""

    tasks: dict[str, Task]
    references: dict[str, Reference]
    attempts: list[Attempted]


@lru_cache(maxsize=1)
def drawn(horizon: int, tasks: int, seeds: tuple[int, ...]) -> Drawn:
    found = Drawn({}, {}, [])
    for seed in seeds:
        long = horizon if horizon != SHORT else None
        count = tasks if long else DRAWN * tasks
        world = MiniWorld(MiniWorld.Config(train_tasks=count, dev_tasks=1, test_tasks=1, calls=long), seed)
        cases = [case for case in world.cases("train") if len(case.solution()) == horizon - 1][:tasks]
        policies = [Scripted(world, case, BUDGETS[horizon], seed) for case in cases]
        skill = skill_for(policies, SOLVED)
        for policy in policies:
            name = f"{policy.case.task.id}-{seed}"
            found.tasks[name] = policy.case.task.model_copy(update={"id": name})
            found.references[name] = policy.case.reference.model_copy(update={"task_id": name})
            for each in policy.attempts(skill, ATTEMPTS[-1], seed):
                renamed = Trajectory.create(**{**dict(each.trajectory), "task_id": name})
                found.attempts.append(Attempted(renamed, each.worth))
    return found


def known(attempt: Trajectory, verdict: str) -> Trajectory:
    """The attempt as training knows it. What is misjudged at a share is so at a higher one, too."""
    if verdict == "none":
        return without_verdict(attempt)
    if verdict == "answered":
        solved = float(attempt.stop_reason is StopReason.finished)
        return Trajectory.create(**{**dict(attempt), "outcome": Outcome(solved=solved)})
    return misjudged(attempt, WRONG.get(verdict, 0.0), seed=0)


def judged(data: Drawn, verdict: str) -> list[ScoredTrajectory]:
    references = data.references
    if verdict != "exact":
        references = {task: Reference(task_id=task) for task in references}
    return annotate_all(
        Rules(Rules.Config()),
        NOBODY,
        [known(item.trajectory, verdict) for item in data.attempts],
        data.tasks.values(),
        references,
        source=OUT,
        what="annotate",
        concurrency=1,
    )


def sums(data: Drawn, scored: Sequence[ScoredTrajectory], credit: Credit) -> dict[int, Floats]:
    """Number of attempts that are compared with each other -> [tasks, 3] sums of xy, xx, yy: x by the credit, y the
    truth. Numbers at which the credit refuses such data are left out."""
    found: dict[int, Floats] = {}
    bare = [own for item in scored if (own := episode(item, (0.0,) * len(item.judgements))) is not None]
    of_all: Rewards = []
    for size in ATTEMPTS:
        try:
            if not credit.depends_on_all and not of_all:
                of_all = rewards_of(credit.form, scored)
            found[size] = _sums(data, scored, bare, of_all, size, credit)
        except DataError:
            continue
    return found


def _sums(
    data: Drawn,
    scored: Sequence[ScoredTrajectory],
    bare: Sequence[Episode],
    of_all: Rewards,
    size: int,
    credit: Credit,
) -> Floats:
    """`of_all`: rewards of all attempts; none where those of an attempt depend on the others that are compared."""
    most, total = ATTEMPTS[-1], np.zeros((len(data.tasks), 3))
    for first in range(0, most, size):
        places = [[task * most + first + k for k in range(size)] for task in range(len(data.tasks))]
        flat = [place for group in places for place in group]
        rewards = [of_all[i] for i in flat] if of_all else rewards_of(credit.form, [scored[i] for i in flat])
        rewarded = iter([replace(bare[i], rewards=tuple(own)) for i, own in zip(flat, rewards, strict=True)])
        groups = [list(islice(rewarded, size)) for _ in places]
        for task, (group, values) in enumerate(zip(places, advantages(groups, credit), strict=True)):
            for place, own in zip(group, values, strict=True):
                x, y = np.array(own), np.array(data.attempts[place].worth)
                total[task] += x @ y, x @ x, y @ y
    return total


def cells(horizon: int, verdict: str, credits: Sequence[Credit], tasks: int, seeds: tuple[int, ...]) -> list[Cell]:
    data = drawn(horizon, tasks, seeds)
    scored = judged(data, verdict)
    draws = np.random.default_rng(0).integers(len(data.tasks), size=(RESAMPLES, len(data.tasks)))
    by_size = {credit.name: sums(data, scored, credit) for credit in credits}
    made = []
    for size in ATTEMPTS:
        found = {name: own[size] for name, own in by_size.items() if size in own}
        values = {name: float(agreement(each.sum(axis=0))) for name, each in found.items()}
        anew = {name: agreement(each[draws].sum(axis=1)) for name, each in found.items()}
        best = max((name for name in values if name in OUTCOME_ONLY), key=values.__getitem__, default=None)
        for name in by_size:
            more = anew[name] - anew[best] if best and name in anew and name not in OUTCOME_ONLY else None
            intervals = (*_interval(anew.get(name)), *_interval(more))
            made.append(Cell(horizon, verdict, size, name, len(data.tasks), values.get(name), *intervals))
    return made


def _interval(values: Floats | None) -> tuple[float | None, float | None]:
    if values is None:
        return None, None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def table(found: Sequence[Cell], credits: Sequence[str]) -> Iterable[str]:
    """Markdown, a table for each horizon. Bold: better than the best by outcomes alone; struck out: worse."""
    for horizon in dict.fromkeys(cell.horizon for cell in found):
        own = [cell for cell in found if cell.horizon == horizon]
        yield f"\n**{horizon} calls**, {own[0].tasks} tasks\n"
        yield f"| verdict | attempts | {' | '.join(credits)} |"
        yield f"| --- | --- |{' --- |' * len(credits)}"
        for verdict in dict.fromkeys(cell.verdict for cell in own):
            for size in ATTEMPTS:
                row = {c.credit: c for c in own if (c.verdict, c.attempts) == (verdict, size)}
                yield f"| {verdict} | {size} | {' | '.join(_shown(row.get(name)) for name in credits)} |"


def _shown(cell: Cell | None) -> str:
    if cell is None or cell.agreement is None:
        return "refused"
    text = f"{cell.agreement:.2f}".replace("0.", ".", 1)
    if cell.more_low is not None and cell.more_low > 0:
        return f"**{text}**"
    if cell.more_high is not None and cell.more_high < 0:
        return f"~~{text}~~"
    return text


def main(
    horizon: Annotated[list[int] | None, typer.Option(help="3, 8, 16 or 32; all of them by default.")] = None,
    verdict: Annotated[list[str] | None, typer.Option(help="Such as exact or none; all of them by default.")] = None,
    credit: Annotated[list[str] | None, typer.Option(help="One more: name=method:settings.")] = None,
    tasks: Annotated[int, typer.Option(min=1, help="Of each seed.")] = 40,
    seeds: Annotated[int, typer.Option(min=1, max=len(SEEDS), help="How many.")] = len(SEEDS),
    out: Annotated[Path, typer.Option(help="Folder of the cells.")] = OUT,
) -> None:
    """Print how well each credit agrees with the truth, for every horizon, verdict and number of attempts."""
    horizons, verdicts = horizon or list(BUDGETS), verdict or list(VERDICTS)
    for wanted, all_of in ((horizons, list(BUDGETS)), (verdicts, list(VERDICTS))):
        if strange := [each for each in wanted if each not in all_of]:
            raise InputError(f"{strange[0]} is not in the grid", where="benchmarks.regime", fix=f"use one of {all_of}")
    settings = CREDITS | dict(named(each) for each in credit or [])
    credits = [Credit.of(name, setting) for name, setting in settings.items()]
    made_by: dict[str, Any] = {
        "code": code_revision(["benchmarks.regime", *(each.module for each in credits)], without=MEANS_NOTHING),
        "credits": [each.made_by for each in credits],
        "tasks": tasks,
        "seeds": SEEDS[:seeds],
    }
    found: list[Cell] = []
    for each in horizons:
        for judging in verdicts:
            file = out / f"{each}-{judging.replace(' ', '-').replace('%', '')}.json"
            stored = read_json(file) if file.exists() else {}
            if stored.get("made_by") != content_hash(made_by):
                fresh = cells(each, judging, credits, tasks, SEEDS[:seeds])
                stored = {"made_by": content_hash(made_by), "cells": [asdict(cell) for cell in fresh]}
                write_json(file, stored)
            found += [Cell(**cell) for cell in stored["cells"]]
    print("\n".join(table(found, list(settings))))
    _write_csv(out / "regime.csv", found)


def _write_csv(file: Path, found: Sequence[Cell]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(Cell.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(asdict(cell) for cell in found)


if __name__ == "__main__":
    run(main)

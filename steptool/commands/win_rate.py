"""`steptool win-rate ONE OTHER`: which of two policies' attempts at the same tasks a judge prefers.

Each pair is asked in both orders. Where the two orders disagree it is a tie, and a tie counts half.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from steptool.core.errors import InputError

if TYPE_CHECKING:
    from steptool.annotators.judge import Judge
    from steptool.commands.judged import Attempts
    from steptool.core.types import Trajectory

One = Annotated[Path, typer.Argument(help="Attempts of one policy: a file or a folder of any stage, or judged runs.")]
Other = Annotated[Path, typer.Argument(help="Attempts of the other at the same tasks.")]
By = Annotated[str | None, typer.Option(help="use=judge,url=…,model=…; by default `annotate` of params.yaml.")]
TaskFiles = Annotated[Path | None, typer.Option(help="Folder of their tasks, or file of the requests of judged runs.")]
Confidence = Annotated[float, typer.Option(min=0.5, max=0.999, help="Coverage of the intervals.")]
RESAMPLES = 2000


def win_rate(one: One, other: Other, judge: By = None, tasks: TaskFiles = None, confidence: Confidence = 0.95) -> None:
    """Print the win rate of one policy against another by a judge, asked in both orders, and both pass rates."""
    import numpy as np

    from steptool.commands.judged import attempts_of
    from steptool.evaluation.bootstrap import bootstrap_mean

    ours, theirs = attempts_of(one, tasks), attempts_of(other, tasks)
    pairs = paired(ours, theirs)
    by = _judge(judge)
    try:
        found = asyncio.run(_asked(by, pairs, ours))
        counts = by.counts()
    finally:
        by.end()
    known: dict[str, list[float]] = {}
    for (mine, _), (value, _) in zip(pairs, found, strict=True):
        if value is not None:
            known.setdefault(mine.task_id, []).append(value)
    values = [value for value, _ in found if value is not None]
    if not known:
        said = f"it preferred none: {', '.join(f'{count:.0f} {name}' for name, count in counts.items())}"
        fix = "see whether it answers, and run the same command again: what was answered is kept"
        raise InputError(said, where=f"the judge {by.config.model} at {by.config.url}", fix=fix)
    means = np.array([fmean(own) for own in known.values()])
    rate, low, high = bootstrap_mean(means, resamples=RESAMPLES, confidence=confidence, rng=np.random.default_rng(0))
    won, lost = sum(each > 0.5 for each in values), sum(each < 0.5 for each in values)
    swapped = sum(is_swapped for value, is_swapped in found if value == 0.5)
    typer.echo(f"{len(pairs)} pairs of attempts at {len(known)} tasks, each asked in both orders")
    typer.echo(f"win rate   {rate:.1%} [{100 * low:.1f}, {100 * high:.1f}], a tie counting half")
    ties = f"{len(values) - won - lost} ties, of which the orders disagreed on {swapped}"
    typer.echo(f"           {won} won, {lost} lost, {ties}; {len(pairs) - len(values)} without an answer of the judge")
    typer.echo(f"pass rate  {_passed(ours)} against {_passed(theirs)}")
    typer.echo(f"the judge  {', '.join(f'{count:.0f} {name}' for name, count in counts.items())}")


def paired(ours: Attempts, theirs: Attempts) -> list[tuple[Trajectory, Trajectory]]:
    """The n-th attempt of one at a task with the n-th of the other; of a search tree its answer, which is its first
    branch. Raises InputError where no task is in both, or one of them holds attempts of several policies."""
    one, other = _by_place(ours), _by_place(theirs)
    found = [(one[place], other[place]) for place in one if place in other]
    if not found:
        fix = "name attempts of two policies at the same tasks"
        raise InputError("they have no task in common", where=f"{ours.source}, {theirs.source}", fix=fix)
    return found


def _by_place(attempts: Attempts) -> dict[tuple[str, int], Trajectory]:
    """By task and number."""
    found: dict[tuple[str, int], Trajectory] = {}
    for each in attempts.made.values():
        first = found.setdefault((each.task_id, each.attempt), each)
        if first is not each and (each.search is None or each.search != first.search):
            said = f"holds several attempts {each.attempt} at task {each.task_id}"
            raise InputError(said, where=str(attempts.source), fix="name the attempts of one policy")
    return found


def _judge(written: str | None) -> Judge:
    from steptool.annotators.judge import Judge
    from steptool.commands.judged import annotator_of
    from steptool.config.places import PARAMS
    from steptool.config.settings import load_params

    used = load_params(PARAMS).annotate if written is None else annotator_of(written)
    if used.cls is not Judge:
        fix = "name one: --judge use=judge,url=http://…/v1,model=…"
        raise InputError(f"annotator {used.name} compares no attempts", where="--judge", fix=fix)
    judge: Judge = used.build()
    return judge


async def _asked(
    by: Judge, pairs: Sequence[tuple[Trajectory, Trajectory]], known: Attempts
) -> list[tuple[float | None, bool]]:
    return await asyncio.gather(
        *(by.prefers(mine, other, known.tasks[mine.task_id], known.references[mine.task_id]) for mine, other in pairs)
    )


def _passed(attempts: Attempts) -> str:
    """By the scores of their file, else by what their sessions recorded."""
    from steptool.commands.judged import OUTCOME, SCORE

    column = attempts.columns.get(SCORE) or attempts.columns.get(OUTCOME, {})
    values = [value for value in column.values() if value is not None]
    return f"{fmean(values):.1%} of {len(values)}" if values else "unknown"

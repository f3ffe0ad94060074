"""`steptool judge-agreement ONE OTHER --over FILE`: how far two judges of the same attempts agree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steptool.core.errors import InputError

if TYPE_CHECKING:
    from steptool.evaluation.agreement import Agreement
    from steptool.evaluation.bootstrap import Estimate

JUDGE = "A score of the file (outcome, solved, verdict, …), another file, or an annotator: use=local_judge"

One = Annotated[str, typer.Argument(help=f"{JUDGE}; #SCORE behind a file or an annotator names another one.")]
Other = Annotated[str, typer.Argument(help="The same.")]
Over = Annotated[Path, typer.Option(help="Attempts: of any stage, or a file or a folder of judged runs.")]
TaskFiles = Annotated[Path | None, typer.Option(help="Folder of their tasks, or file of the requests of judged runs.")]
Threshold = Annotated[float, typer.Option(min=0.0, max=1.0, help="What a score must be over to count as 1.")]
Resamples = Annotated[int, typer.Option(min=100, max=100_000, help="Of the bootstrap over tasks.")]
Confidence = Annotated[float, typer.Option(min=0.5, max=0.999, help="Coverage of the intervals.")]


def judge_agreement(
    one: One,
    other: Other,
    over: Over,
    tasks: TaskFiles = None,
    threshold: Threshold = 0.5,
    resamples: Resamples = 2000,
    confidence: Confidence = 0.95,
) -> None:
    """Print accuracy, Cohen's κ and the table of two judges of the same attempts, for each group, with intervals."""
    from steptool.commands.judged import attempts_of, said_by
    from steptool.evaluation.agreement import ALL, Pair, agreements

    attempts = attempts_of(over, tasks)
    first, second = said_by(one, attempts), said_by(other, attempts)
    known = {made.id: attempts.tasks[made.task_id] for made in attempts.made.values()}
    places = [place for place in dict.fromkeys([*first, *second]) if place[0] in known]
    pairs = [
        Pair(
            task=known[place[0]].id,
            group=known[place[0]].group,
            one=first.get(place),
            other=second.get(place),
        )
        for place in places
    ]
    found = agreements(pairs, threshold=threshold, resamples=resamples, confidence=confidence, seed=0)
    if not found[ALL].attempts:
        fix = "name two scores that both have a value somewhere; judge attempts with an annotator that can tell"
        raise InputError("no attempt has a score of both", where=str(over), fix=fix)
    typer.echo(
        f"one: {one}\nother: {other}\n1 where the score is over {threshold:g}; {confidence:.0%} intervals over tasks\n"
    )
    typer.echo("\n".join(table(found)))


def table(found: Mapping[str, Agreement]) -> list[str]:
    width = max(len(name) for name in ("group", *found))
    cells = f"{'both 1':>7} {'one 1':>7} {'other 1':>8} {'both 0':>7} {'unknown':>8}"
    lines = [f"{'group':{width}} {'scores':>7} {'accuracy':>22} {'κ':>20} {cells}"]
    for name, own in found.items():
        cells = f"{own.both:>7} {own.one_only:>7} {own.other_only:>8} {own.neither:>7} {own.unknown:>8}"
        accuracy, kappa = percent(own.accuracy), number(own.kappa)
        lines.append(f"{name:{width}} {own.attempts:>7} {accuracy:>22} {kappa:>20} {cells}")
    return lines


def percent(of: Estimate) -> str:
    if of.value is None or of.low is None or of.high is None:
        return "—"
    return f"{of.value:.1%} [{100 * of.low:.1f}, {100 * of.high:.1f}]"


def number(of: Estimate) -> str:
    if of.value is None or of.low is None or of.high is None:
        return "—"
    return f"{of.value:.2f} [{of.low:.2f}, {of.high:.2f}]"

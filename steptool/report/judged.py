"""Figures of judged runs as tables, for a terminal and as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from steptool.core.types import SUBSETS
from steptool.evaluation.bootstrap import Estimate
from steptool.evaluation.compare import Difference
from steptool.evaluation.judged.figures import Against, Figures, Published, Run
from steptool.evaluation.metrics import ALL
from steptool.report.wording import p_number, points

NONE = "–"


@dataclass(frozen=True)
class Table:
    title: str
    says: str
    """What its columns are, as sentences."""
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(found: Figures) -> list[Table]:
    """As published, over one list of requests, and against the baseline; the last only where something is compared."""
    made = [_published(found), _measured(found)]
    return [*made, _against(found)] if found.against else made


def as_text(found: Figures) -> str:
    """Aligned columns, one line a run."""
    parts = [f"{table.title}\n{table.says}\n\n{_aligned(table)}" for table in tables(found)]
    return "\n\n".join([*parts, *notes(found)])


def as_markdown(found: Figures) -> str:
    """A heading, a sentence and a table for each."""
    parts = []
    for table in tables(found):
        lines = [table.head, ("---",) * len(table.head), *table.rows]
        grid = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
        parts.append(f"### {table.title}\n\n{table.says}\n\n{grid}")
    return "\n\n".join([*parts, *notes(found)]) + "\n"


def notes(found: Figures) -> list[str]:
    """What a reader has to know about these files, a sentence each."""
    lines = [
        f"{run.name} lacks {run.missing} of {found.requests} requests, which count as unsolved in every table but the "
        f"first; its calls are counted over the other {found.requests - run.missing}."
        for run in found.runs
        if run.missing
    ]
    if 0 < found.recall_of < found.requests:
        lines.append(f"Recall is over {found.recall_of} requests: of the others nobody says which functions they need.")
    lines += [
        f"{run.name}: the mean that the file states for {run.restated} requests is not that of their verdicts; it was "
        "computed anew."
        for run in found.runs
        if run.restated
    ]
    lines += [
        f"{run.name}: {run.over_budget} attempts made more than {found.calls} calls, up to {run.longest}."
        for run in found.runs
        if run.over_budget
    ]
    paired = {name for each in found.against for name in (each.run, each.baseline)}
    alone = [run.name for run in found.runs if run.name not in paired]
    if alone:
        lines.append(f"Compared with nothing: {', '.join(alone)}. `--against RUN` names a baseline for all.")
    return lines


def _published(found: Figures) -> Table:
    def cell(published: Published | None) -> str:
        return NONE if published is None else f"{100 * published.mean:.1f} ± {100 * published.spread:.1f}"

    names = [*found.groups]
    return Table(
        title="As published",
        says="Solved, in percent of the requests of the run's own file: the mean over the verdict passes and their "
        "standard deviation. Solved counts 1, Unsure ½, no answer 0. I1, I2, I3 and all weight requests equally.",
        head=("run", *(f"{_short(name)} ({found.groups[name]})" for name in names)),
        rows=tuple((run.name, *(cell(run.published.get(name)) for name in names)) for run in found.runs),
    )


def _measured(found: Figures) -> Table:
    columns: list[tuple[str, Callable[[Run], str]]] = [
        ("solved", lambda run: _rate(run.measured.solved)),
        ("finished", lambda run: _rate(run.measured.finished)),
        ("solved if finished", lambda run: _rate(run.measured.solved_if_finished)),
        (f"solved in {found.calls} calls", lambda run: _rate(run.measured.solved_within)),
        (f"finished in {found.calls}", lambda run: _rate(run.measured.finished_within)),
        ("recall", lambda run: _rate(run.measured.recall)),
        ("calls", lambda run: _number(run.measured.calls)),
        ("longest", lambda run: str(run.longest)),
    ]
    return Table(
        title=f"Over the same {found.requests} requests",
        says=f"In percent, with the {100 * found.confidence:.0f} % interval of a bootstrap over requests. Recall: "
        "relevant functions that were called. Calls: an attempt, Finish included.",
        head=("run", *(head for head, _ in columns)),
        rows=tuple((run.name, *(cell(run) for _, cell in columns)) for run in found.runs),
    )


def _against(found: Figures) -> Table:
    def won(each: Against) -> str:
        return f"{100 * each.win_rate:.1f} ({each.won} : {each.lost})"

    def won_within(each: Against) -> str:
        return f"{100 * each.win_rate_within:.1f} ({each.won_within} : {each.lost_within})"

    columns: list[tuple[str, Callable[[Against], str]]] = [
        ("without a budget", lambda each: _difference(each.difference)),
        (f"in {found.calls} calls", lambda each: _difference(each.within)),
        ("where both finish", lambda each: _difference(each.both_finish, with_tasks=True)),
        ("win rate", won),
        (f"win rate in {found.calls} calls", won_within),
    ]
    return Table(
        title="Against the baseline",
        says=f"Difference of the rate solved in points, request by request, with its {100 * found.confidence:.0f} % "
        "interval and p-value. Win rate in percent (won : lost): a request is won where every verdict on the run is "
        "above every verdict on the baseline; all others are ties, which count half.",
        head=("run", "baseline", *(head for head, _ in columns)),
        rows=tuple((each.run, each.baseline, *(cell(each) for _, cell in columns)) for each in found.against),
    )


def _rate(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return NONE
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _number(estimate: Estimate) -> str:
    return NONE if estimate.value is None else f"{estimate.value:.2f}"


def _difference(found: Difference | None, *, with_tasks: bool = False) -> str:
    if found is None:
        return NONE
    middle, low, high = points(found.difference, 1, sign=True), points(found.low, 1), points(found.high, 1)
    text = f"{middle} [{low}, {high}] p {p_number(found.p_value)}".replace("\N{NARROW NO-BREAK SPACE}", " ")
    return f"{text}, {found.tasks} requests" if with_tasks else text


def _short(group: str) -> str:
    head, _, tail = group.partition("_")
    return f"{head} {tail[:4]}" if group in SUBSETS else ALL if group == ALL else group


def _aligned(table: Table) -> str:
    lines = [table.head, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [_line(line, widths) for line in lines]
    return "\n".join([texts[0], "─" * len(texts[0]), *texts[1:]])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.ljust(width) if place == 0 else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()

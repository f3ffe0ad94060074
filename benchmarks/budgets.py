"""What policies solve within fewer actions: the attempts of measured cells, cut.

A measured attempt is greedy and its prompt does not name the budget, so with at most n actions it is the beginning of
the longer attempt: it solves its task where that one had solved it within n actions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.cells import SFT, Cell
from benchmarks.figures import START, Row, paired, rows_of, table
from steptool.config.places import JUDGED
from steptool.core.errors import DataError
from steptool.core.storage import stream_jsonl
from steptool.core.types import ScoredTrajectory
from steptool.report.wording import percent, points


def budgets(cells: Sequence[Cell], out: Path, most: Sequence[int]) -> Iterator[str]:
    """Lines, a section for each corner and split: pass rate within so many actions, and points above the start.

    out: the folder in which `run` made the cells. Raises DataError where the attempts of a cell are gone, or it was
    measured at several attempts a task.
    """
    for corner, split, calls in dict.fromkeys((cell.corner, cell.split, cell.calls) for cell in cells):
        if corner.startswith(START):
            continue
        rows = rows_of(cells, (corner, split, calls))
        wanted = [*sorted(each for each in most if each < calls), calls]
        yield f"## {corner}: {split} tasks, solved within so many actions"
        yield ""
        within = {number: [_cut(row, out, number) for row in rows] for number in wanted}
        starts = {number: next((row for row in those if row.name == SFT), None) for number, those in within.items()}
        yield from table(
            ["variant", "seeds", *(f"{number} actions" for number in wanted)],
            (
                [
                    row.title,
                    ", ".join(map(str, sorted(row.evaluations))),
                    *(_said(within[number][place], starts[number]) for number in wanted),
                ]
                for place, row in enumerate(rows)
                if row.evaluations
            ),
        )


def _cut(row: Row, out: Path, most: int) -> Row:
    return Row(row.name, row.round, {seed: _cut_cell(cell, out, most) for seed, cell in row.cells.items()})


def _cut_cell(cell: Cell, out: Path, most: int) -> Cell:
    if cell.evaluation is None or most >= cell.calls:
        return cell
    if cell.evaluation.attempts > 1:
        raise DataError(f"{cell.evaluation.attempts} attempts a task", where=cell.variant, fix="measure one, greedy")
    solved = dict.fromkeys(cell.evaluation.solved, 0.0)
    for scored in stream_jsonl(_attempts(cell, out), ScoredTrajectory):
        if len(scored.trajectory.steps) <= most:
            solved[scored.trajectory.task_id] = scored.solved or 0.0
    return cell.model_copy(update={"evaluation": cell.evaluation.model_copy(update={"solved": solved})})


def _attempts(cell: Cell, out: Path) -> Path:
    """Where `benchmarks.cells` left the attempts that it measured."""
    place = f"measuring/{cell.seed}.{cell.variant}/{cell.corner}.r{cell.round}.{cell.split}.c{cell.calls}{JUDGED}"
    profile = cell.corner.partition(f"{START}-")[2]
    found = [file for file in out.glob(f"seed{cell.seed}*/{place}") if not profile or file.parts[-4].endswith(profile)]
    if not found:
        raise DataError("the attempts of a cell are gone", where=place, fix="remove the cell and run it again")
    return found[0]


def _said(row: Row, start: Row | None) -> str:
    if start is None or row.name == SFT:
        return percent(row.mean, 1)
    found = paired(row.evaluations, start.evaluations)
    if found is None:
        return percent(row.mean, 1)
    difference, low, high = (points(each, 1, sign=True) for each in (found.difference, found.low, found.high))
    return f"{percent(row.mean, 1)}, {difference} [{low}, {high}]"

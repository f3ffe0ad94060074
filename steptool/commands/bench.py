"""`steptool bench`: policies on a world outside of the graph, and judged runs of others measured again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from steptool.evaluation.judged.figures import Figures

app = typer.Typer(no_args_is_help=True, help="Measure policies on a world, or runs that others judged, again.")


@app.command()
def judged(
    folder: Annotated[Path, typer.Argument(help="Of files NAME.jsonl.gz or NAME.jsonl, one a run.")],
    calls: Annotated[int, typer.Option(min=1, help="Budget at which every attempt is cut, Finish included.")] = 4,
    against: Annotated[
        str | None, typer.Option(help="Baseline: a run for all others, or a method for the runs of equal search.")
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="The requests with their relevant functions; beside the folder by default.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=100, max=1_000_000, help="Of the bootstrap over requests.")] = 10_000,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the intervals.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    json: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write the tables to this file.")] = None,
) -> None:
    """Measure judged runs again: as published, at an equal budget of calls, and against a baseline."""
    from steptool.core.errors import printable
    from steptool.core.storage import write_bytes, write_json
    from steptool.report.judged import as_markdown, as_text

    found = _figures(folder, calls, against, queries, resamples, confidence, seed)
    typer.echo(printable(as_text(found)))
    if json is not None:
        write_json(json, found.model_dump(mode="json"))
    if markdown is not None:
        write_bytes(markdown, as_markdown(found).encode())


def _figures(
    folder: Path,
    calls: int,
    against: str | None,
    queries: Path | None,
    resamples: int,
    confidence: float,
    seed: int,
) -> Figures:
    """Raises InputError where nothing can be compared with `against`, DataError for files that cannot be used."""
    from steptool.core.errors import InputError
    from steptool.evaluation.judged.figures import figures, pairs_of
    from steptool.evaluation.judged.files import read_folder, read_requests, requests_beside
    from steptool.evaluation.judged.records import subset_of

    files = read_folder(folder)
    known = {file.name for file in files} | {file.method for file in files}
    if against is not None and against not in known:
        raise InputError(
            f"no run and no method is called {against[:80]!r}",
            where=str(folder),
            fix=f"use one of {', '.join(sorted(known))}",
        )
    requests = queries or requests_beside(folder)
    return figures(
        files,
        subset_of(files),
        read_requests(requests) if requests else {},
        pairs_of(files, against),
        calls=calls,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )

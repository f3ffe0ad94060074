"""`steptool bench`: policies on a world outside of the graph, and judged runs of others measured again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from steptool.evaluation.judged.figures import Figures
    from steptool.report.page import ReportData


class WorldsAreCommands(TyperGroup):
    """`bench mini` is `bench world mini`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["world", *args])


app = typer.Typer(
    cls=WorldsAreCommands,
    no_args_is_help=True,
    help="Measure policies on any world: `steptool bench mini` is `steptool bench world mini`.",
)
Limit = Annotated[int | None, typer.Option(min=1, help="Only so many tasks of a world.")]
Policies = Annotated[
    list[str] | None, typer.Option("--policy", help="An arm, a policy's folder, base, or @champion. May be repeated.")
]


@app.command()
def world(
    name: Annotated[str, typer.Argument(metavar="WORLD", help="As `use` of params.yaml: mini, or module:Class.")],
    policy: Policies = None,
    endpoint: Annotated[
        list[str] | None, typer.Option(help="An arm with an endpoint, or MODEL@URL. May be repeated.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Environment variable with the API key for MODEL@URL.")] = None,
    against: Annotated[str | None, typer.Option(help="Policy that all others are compared with.")] = None,
    limit: Limit = None,
    split: Annotated[
        Literal["test", "dev"] | None, typer.Option(help="By default as `evaluate.split` of params.yaml.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value of the world, or section.key=value, as sample.max_calls=12."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="By default as in params.yaml.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write evaluations and differences to this file.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write an offline page to this file.")] = None,
) -> None:
    """Measure policies on the tasks of a world under equal conditions, outside of the training graph."""
    from steptool.report.wording import text_table
    from steptool.stages.bench import Wanted, measure

    wanted = Wanted(
        world=name,
        policies=tuple(policy or ()),
        endpoints=tuple(endpoint or ()),
        key=key,
        settings=tuple(set_ or ()),
        split=split,
        limit=limit,
        seed=seed,
        against=against,
    )
    found = measure(wanted)
    typer.echo(f"\n{text_table(found)}")
    _write(found, json, html)


@app.command(name="all")
def all_worlds(
    policy: Policies = None,
    against: Annotated[str | None, typer.Option(help="Policy that all others are compared with.")] = None,
    limit: Limit = None,
    seed: Annotated[int | None, typer.Option(min=0, help="By default as in params.yaml.")] = None,
    page: Annotated[Path, typer.Option(help="The page with all tables; each world's own is beside it.")] = Path(
        ".steptool/bench/index.md"
    ),
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.key=value, for every world.")] = None,
) -> None:
    """Measure policies on every world whose verdicts need no judge, and name those that are left out."""
    from steptool.core.storage import write_bytes
    from steptool.report.bench import page as page_of
    from steptool.report.page import render_report
    from steptool.stages.bench import Wanted
    from steptool.stages.bench_all import measure_all

    wanted = Wanted("", tuple(policy or ()), settings=tuple(set_ or ()), limit=limit, seed=seed, against=against)
    found = measure_all(wanted)
    text = page_of(found)
    for world_name, data in found.measured.items():
        write_bytes(page.with_name(f"{page.stem}-{world_name}.html"), render_report(data).encode())
    write_bytes(page, text.encode())
    typer.echo(f"\n{text}\n-> {page}")


def _write(found: ReportData, json: Path | None, html: Path | None) -> None:
    from steptool.core.storage import write_bytes, write_json
    from steptool.report.page import render_report

    if json is not None:
        evaluations = [each.model_dump(mode="json") for each in found.evaluations]
        comparisons = [each.model_dump(mode="json") for each in found.comparisons]
        write_json(json, {"evaluations": evaluations, "comparisons": comparisons})
    if html is not None:
        write_bytes(html, render_report(found).encode())


@app.command()
def judged(
    folder: Annotated[Path, typer.Argument(help="Of files NAME.jsonl.gz or NAME.jsonl, one a run; or one of them.")],
    calls: Annotated[int, typer.Option(min=1, help="Budget at which every attempt is cut, Finish included.")] = 4,
    against: Annotated[
        str | None, typer.Option(help="Baseline: a run for all others, or a method for the runs of equal search.")
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="Their requests; by default queries.jsonl.gz in the folder or above it.")
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
    from steptool.evaluation.judged.files import read_requests, read_runs, requests_beside
    from steptool.evaluation.judged.records import subset_of

    files = read_runs(folder)
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

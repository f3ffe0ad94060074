"""`steptool tasks check | list`: what is wrong with the tasks, what so many of them can show, and which is for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from steptool.worlds.base import Split
    from steptool.worlds.project.lint import Finding
    from steptool.worlds.project.tasks import TaskLine

MOST_GROUPS = 12
"""Groups that the table shows."""
MOST_PLACES = 3
"""Lines of the file that a warning names."""
POINTS = (10, 5)
"""Differences of the solve rate, in points, for which it is said how many tasks show them."""
app = typer.Typer(no_args_is_help=True, help="Check and list the tasks of the world in params.yaml.")

Discordance = Annotated[
    float,
    typer.Option(min=0.01, max=1.0, help="Share of the tasks that one of two policies solves alone, as you expect it."),
]


OfSplit = Annotated[str | None, typer.Option(help="Only those for train, dev or test.")]


@app.command("list")
def list_tasks(split: OfSplit = None) -> None:
    """The tasks as they are split, one a line: split, id, group, query. Only those for train may be demonstrated."""
    from steptool.config.settings import load_params
    from steptool.core.errors import InputError, printable
    from steptool.worlds.base import SPLITS, Ends

    if split is not None and split not in SPLITS:
        raise InputError(f"there is no split {split[:40]!r}", where="--split", fix=f"name one of {', '.join(SPLITS)}")
    params = load_params()
    world = params.world.build(params.seed)
    for each in SPLITS:
        for task in world.tasks(each) if split in (None, each) else ():
            typer.echo("\t".join(map(printable, (each, task.id, task.group, " ".join(task.query.split())))))
    if isinstance(world, Ends):
        world.end()


@app.command()
def check(discordance: Discordance = 0.3) -> None:
    """Lint the tasks, show how they are split, and say what difference so many can show; exit 2 where one is wrong."""
    import asyncio

    from steptool.config.settings import load_params
    from steptool.core.errors import InputError
    from steptool.worlds.project.lint import doubts, idle_attempts, read, unusable
    from steptool.worlds.project.world import ProjectSettings

    params = load_params()
    config = params.world.config
    if not isinstance(config, ProjectSettings):
        fix = "use functions, openapi, mcp or agent as `world` to write tasks of your own"
        raise InputError(f"world {params.world.name} has no file of tasks", where="params.yaml", fix=fix)
    found = read(config, lambda changed: params.world.cls(changed, params.seed))
    sides = found.sides()
    findings = [*found.errors, *unusable(found), *doubts(found.lines, sides)]
    if found.world is not None:
        timeout_s = params.sample.tool_timeout_s
        findings += asyncio.run(idle_attempts(found.world, found.lines, timeout_s=timeout_s))
        found.world.end()
    typer.echo(f"{config.tasks}: {len(found.lines)} task{'' if len(found.lines) == 1 else 's'} can be read")
    for line in (
        *_table(found.lines, sides),
        "",
        *_listed(findings),
        *_shown_by(found.lines, sides, discordance),
    ):
        typer.echo(line)
    errors = sum(finding.kind == "error" for finding in findings)
    typer.echo(f"errors: {errors or 'none'}; warnings: {len(findings) - errors or 'none'}")
    raise typer.Exit(2 if errors else 0)


def _table(lines: Mapping[str, TaskLine], sides: Mapping[str, Split]) -> Iterator[str]:
    from steptool.worlds.base import SPLITS

    if not sides:
        return
    counts = Counter((lines[where].group, split) for where, split in sides.items())
    groups = list(dict.fromkeys(lines[where].group for where in sides))
    width = max(len("all groups"), *(len(group) for group in groups[:MOST_GROUPS]))
    yield f"  {'':{width}}" + "".join(f"{split:>8}" for split in SPLITS)
    for group in groups[:MOST_GROUPS]:
        yield f"  {group:{width}}" + "".join(f"{counts[group, split]:8}" for split in SPLITS)
    if len(groups) > MOST_GROUPS:
        yield f"  and {len(groups) - MOST_GROUPS} groups more"
    if len(groups) > 1:
        totals = Counter(sides.values())
        yield f"  {'all groups':{width}}" + "".join(f"{totals[split]:8}" for split in SPLITS)


def _listed(findings: Sequence[Finding]) -> Iterator[str]:
    from steptool.core.errors import printable

    for finding in findings:
        places = ", ".join(finding.where[:MOST_PLACES])
        more = f" and {len(finding.where) - MOST_PLACES} more" if len(finding.where) > MOST_PLACES else ""
        if finding.kind == "error":
            yield printable(f"error    {places}{more}{': ' if places else ''}{finding.found}")
        else:
            yield printable(f"warning  {finding.found}{f' ({places}{more})' if places else ''}")
        if finding.fix:
            yield printable(f"         fix: {finding.fix}")
    if findings:
        yield ""


def _shown_by(lines: Mapping[str, TaskLine], sides: Mapping[str, Split], discordance: float) -> Iterator[str]:
    """Tasks of one cluster count as one: at worst they are all solved or all failed together."""
    from steptool.worlds.project.split import clusters

    try:
        from steptool.evaluation.power import smallest_difference, tasks_needed
    except ImportError:
        yield "What difference these test tasks can show is computed by scipy: pip install scipy"
        return
    tested = [where for where, split in sides.items() if split == "test"]
    tasks = len(clusters({where: lines[where] for where in tested}))
    what = f"{tasks} test tasks" if tasks == len(tested) else f"{len(tested)} test tasks, which are {tasks} clusters,"
    smallest = smallest_difference(tasks, discordance=discordance)
    shown = (
        "no difference, however large: six are the least"
        if smallest is None
        else f"only differences of {100 * smallest:.0f} points and more"
    )
    yield f"{what} show {shown}"
    enough = "; ".join(
        f"{points} points need {tasks_needed(points / 100, discordance=discordance)} test tasks"
        for points in POINTS
        if smallest is None or smallest > points / 100
    )
    alone = f"one of two policies alone solves {100 * discordance:.0f} % of them"
    yield f"  (four times in five, at 95 % confidence, where {alone}; --discordance assumes another share)"
    if enough:
        yield f"  {enough}"

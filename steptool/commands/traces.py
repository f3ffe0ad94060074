"""`steptool traces import | export`: recorded conversations of any agent, in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from steptool.traces.report import Report

app = typer.Typer(no_args_is_help=True, help="Import what an agent did, as tasks and trajectories; export it.")

Source = Annotated[str, typer.Argument(help="A file, a folder of files, or the address of a tracking server.")]
Kind = Annotated[str, typer.Option("--from", help="What it holds; by default told from its content.")]
Name = Annotated[str, typer.Option(help="Of the folder in traces/; by default that of the source.")]
Lenient = Annotated[bool, typer.Option("--lenient", help="Leave out records that cannot be read, and count them.")]
Drop = Annotated[list[str] | None, typer.Option(help="A field of arguments and replies to be made unreadable.")]
Setting = Annotated[list[str] | None, typer.Option("--set", help="A setting of the reader, as key=value.")]
Add = Annotated[bool, typer.Option("--add", help="Add to the folder, if it is there.")]
WithSystem = Annotated[bool, typer.Option("--with-system", help="Put the system's messages before the query.")]
Region = Annotated[str, typer.Option(help="Country whose phone numbers are written without +, by its two letters.")]


@app.callback()
def _group() -> None:
    """Without this a single command would be the whole."""


@app.command("import")
def import_(
    source: Source,
    kind: Kind = "",
    name: Name = "",
    lenient: Lenient = False,
    drop: Drop = None,
    set_: Setting = None,
    add: Add = False,
    with_system: WithSystem = False,
    region: Region = "US",
) -> None:
    """Write conversations as tasks and trajectories into traces/NAME; without e-mail addresses, phone numbers, keys."""
    from steptool.traces.kinds import import_from

    report = import_from(
        source,
        kind=kind,
        name=name,
        lenient=lenient,
        drop=drop or [],
        settings=settings_of(set_ or []),
        add=add,
        with_system=with_system,
        region=region,
    )
    for line in lines_of(report):
        typer.echo(line)


def settings_of(written: list[str]) -> dict[str, Any]:
    """`key=value` as settings: a number, true or false where the value is one. Raises InputError for another text."""
    import json

    from steptool.core.errors import InputError

    found: dict[str, Any] = {}
    for text in written:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"{text[:80]!r} is no setting", where="--set", fix="write it as key=value")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def lines_of(report: Report) -> list[str]:
    """What the user is told."""
    return [str(report)]

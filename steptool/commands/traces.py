"""`steptool traces import | export`: recorded conversations of any agent, in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

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
    from steptool.traces.wording import lines

    folder, report = import_from(
        source,
        kind=kind,
        name=name,
        lenient=lenient,
        drop=drop or [],
        settings=settings_of(set_ or []),
        add=add,
        with_system=with_system,
        region=region,
        on_progress=lambda count: typer.echo(f"{count:,} records read", err=True),
    )
    typer.echo("\n".join(lines(folder, report)))


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="A file or folder of trajectories of any stage, or traces/NAME.")],
    out: Annotated[Path, typer.Argument(help="The file to write, one trajectory a line.")],
    to: Annotated[str, typer.Option(help="openai or atif.")] = "openai",
    tasks: Annotated[Path | None, typer.Option(help="Folder of their tasks; by default data/tasks.")] = None,
) -> None:
    """Write trajectories as OpenAI JSONL or ATIF."""
    from steptool.traces.export import export as write

    counts = write(source, to, out, tasks)
    typer.echo(f"{out}: {', '.join(f'{count:,} {what}' for what, count in counts.items()) or 'no trajectories'}")


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
        except (ValueError, RecursionError):
            found[key] = value
    return found

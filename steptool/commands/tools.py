"""`steptool tools list | try | check`: the tools of the project's world, by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from steptool.core.types import Observation, Tool, ToolCall
    from steptool.worlds.project.recording import Kept
    from steptool.worlds.project.toolbox import Toolbox
    from steptool.worlds.project.world import ProjectWorld

MOST_SHOWN = 1_000_000
"""Characters of a reply that `try` shows."""
MOST_DIFFERENCES = 5
"""Differences of one reply, or of one listing, that `check` names."""
app = typer.Typer(no_args_is_help=True, help="List, call and check the tools of the world in params.yaml.")

ToolName = Annotated[str, typer.Argument(help="Name of the tool; `steptool tools list` lists them.")]
Arguments = Annotated[str, typer.Argument(help='As a JSON object: \'{"title": "Dune"}\'.')]
Sample = Annotated[int, typer.Option(min=1, help="How many of the recorded calls are made again.")]
Writes = Annotated[bool, typer.Option("--writes", help="Make also those that change something elsewhere.")]


@app.command("list")
def list_tools() -> None:
    """The tools as a model may be offered them: name, arguments, what it does."""
    world, _ = _world()
    for tool in world.toolbox.tools.values():
        typer.echo(f"{tool.name}({_signature(tool)})\n    {tool.description}")


@app.command("try")
def try_tool(name: ToolName, arguments: Arguments = "{}") -> None:
    """Call a tool once, as an attempt would, and show what it replies."""
    import asyncio
    import time

    from steptool.core.types import ToolCall
    from steptool.worlds.project.recording import RecordedConnection
    from steptool.worlds.traces.world import RecordedReplies

    world, timeout_s = _world()
    call = ToolCall(name=_known(name, world.toolbox), arguments=_arguments(arguments))
    connection = world.connect()
    started = time.monotonic()
    seen = asyncio.run(_made(world, connection, [call], timeout_s, most=MOST_SHOWN))
    seconds = time.monotonic() - started
    world.end()
    kept = isinstance(connection, RecordedConnection) and connection.replayed
    typer.echo(seen.text)
    origin = f"from {world.config.recordings}" if kept else "live"
    if isinstance(connection, RecordedReplies):
        origin = f"from {world.config.path}"
    typer.echo(f"{f'error {seen.error}' if seen.error else 'no error'}, {seconds:.3f} s, {origin}", err=True)


@app.command()
def check(sample: Sample = 20, writes: Writes = False) -> None:
    """Make a sample of the recorded calls again; say where the tools reply otherwise by now, and exit 1 then."""
    import asyncio
    import sys

    from steptool.core.errors import InputError
    from steptool.worlds.agent.world import AgentWorld

    world, timeout_s = _world()
    if isinstance(world, AgentWorld):
        world.end()
        fix = "`steptool tools try` has the agent call one"
        raise InputError("no replies of an agent's tools are recorded, for it calls them itself", fix=fix)
    drift = _drift_of_listing(world)
    recorded = world.recordings.sample(world.identity, sample if writes else 100 * sample)
    chosen = [kept for kept in recorded if writes or _is_harmless(kept, world)][:sample]
    if not recorded and not drift:
        fix = "set world.record: auto in params.yaml, and run the pipeline or `steptool tools try`"
        raise InputError("holds no replies of these tools", where=str(world.config.recordings), fix=fix)
    for line in drift:
        typer.echo(line)
    for kept in chosen:
        calls = [*kept.earlier, kept.call]
        now = asyncio.run(_made(world, world.toolbox.connect(), calls, timeout_s, most=sys.maxsize))
        found = [f"{_shown(kept.call)}: {line}" for line in _differences(kept.reply, now)]
        for line in found:  # at once: the service may be gone at the next call
            typer.echo(line)
        drift += found
    world.end()
    skipped = "" if chosen or not recorded else " (all that are recorded change something: --writes makes them, too)"
    typer.echo(f"calls made again: {len(chosen)}{skipped}; differences: {len(drift) or 'none'}")
    raise typer.Exit(1 if drift else 0)


def _world() -> tuple[ProjectWorld, float]:
    """The world of params.yaml, and how long its tools may take. Raises InputError for one that has no toolbox."""
    from steptool.config.settings import load_params
    from steptool.core.errors import InputError
    from steptool.worlds.project.world import ProjectWorld

    params = load_params()
    world = params.world.build(params.seed)
    if not isinstance(world, ProjectWorld):
        fix = "use functions, openapi, mcp or agent as `world` to have tools of your own"
        raise InputError(f"world {params.world.name} has no tools of a project", where="params.yaml", fix=fix)
    return world, params.sample.tool_timeout_s


async def _made(
    world: ProjectWorld, connection: Any, calls: list[ToolCall], timeout_s: float, *, most: int
) -> Observation:
    """The reply to the last of the calls, made in an attempt of their own; at most `most` characters of it."""
    from steptool.core.types import Task
    from steptool.rollouts.guard import GuardedSession
    from steptool.worlds.project.session import ProjectSession

    task = Task(id="by hand", group="all", query="", tools=tuple(world.toolbox.tools.values()))
    session = GuardedSession(ProjectSession(task, connection, ()), timeout_s=timeout_s, most=most)
    try:
        return [await session.call(call) for call in calls][-1]
    finally:
        await session.close(None)


def _known(name: str, toolbox: Toolbox) -> str:
    import difflib

    from steptool.core.errors import InputError

    if name in toolbox.tools:
        return name
    near = difflib.get_close_matches(name, toolbox.tools, n=1, cutoff=0.4)
    fix = f"did you mean {near[0]}?" if near else "`steptool tools list` lists them"
    raise InputError(f"no tool is called {name!r}", where="steptool tools try", fix=fix)


def _arguments(text: str) -> dict[str, Any]:
    import json

    from steptool.core.errors import InputError

    fix = """write them as one JSON object in single quotes, such as '{"title": "Dune"}'"""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"the arguments are no JSON: {error}", where="steptool tools try", fix=fix) from error
    if not isinstance(found, dict):
        raise InputError(f"the arguments are no object: {text[:80]}", where="steptool tools try", fix=fix)
    return found


def _signature(tool: Tool) -> str:
    """`title: string, limit?: integer`: arguments that may be left out have a question mark."""
    required = tool.parameters.get("required", ())
    properties: dict[str, Any] = tool.parameters.get("properties", {})
    return ", ".join(f"{name}{'' if name in required else '?'}: {_kind(each)}" for name, each in properties.items())


def _kind(schema: Any) -> str:
    if not isinstance(schema, dict):
        return "any"
    if "const" in schema or "enum" in schema:
        return "|".join(map(str, schema.get("enum", [schema.get("const")])))
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if union := schema.get("anyOf", schema.get("oneOf")):
        return "|".join(map(_kind, union))
    kind = schema.get("type", "any")
    return f"[{_kind(schema.get('items'))}]" if kind == "array" else "|".join([kind] if isinstance(kind, str) else kind)


def _is_harmless(kept: Kept, world: ProjectWorld) -> bool:
    """Whether nothing outside of this machine changes where the call is made again."""
    from steptool.worlds.workers.toolbox import FunctionsToolbox

    toolbox = world.toolbox
    return kept.call.name in toolbox.tools and (
        isinstance(toolbox, FunctionsToolbox) or not (kept.earlier or toolbox.changes_state(kept.call.name))
    )


def _drift_of_listing(world: ProjectWorld) -> list[str]:
    listing = world.listing(world.config)
    then = None if listing is None else world.recordings.listing(listing.source)
    if listing is None or then is None:
        return []
    return [f"{listing.source}: {line}" for line in _differences_of_texts(then, listing.ask())]


def _differences(then: Observation, now: Observation) -> list[str]:
    if then.error != now.error:
        return [f"error {then.error} → {now.error}: {now.text[:200]}"]
    return _differences_of_texts(then.text, now.text)


def _differences_of_texts(then: str, now: str) -> list[str]:
    """By their places where both are JSON, else line by line; the first few of them."""
    import difflib
    import json
    from itertools import islice

    if then == now:
        return []
    try:
        found = _changed(json.loads(then), json.loads(now), "$")
    except ValueError:
        lines = difflib.unified_diff(then.splitlines(), now.splitlines(), n=0, lineterm="")
        found = (line[:200] for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---"))
    return list(islice(found, MOST_DIFFERENCES))


def _changed(then: Any, now: Any, path: str) -> Iterator[str]:
    """`$.rows[0].price: 9.5 → 10.5`, a line each."""
    from itertools import zip_longest

    if isinstance(then, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*then, *now]):
            yield from _changed(then.get(key, "(absent)"), now.get(key, "(absent)"), f"{path}.{key}")
    elif isinstance(then, list) and isinstance(now, list):
        for index, (one, other) in enumerate(zip_longest(then, now, fillvalue="(absent)")):
            yield from _changed(one, other, f"{path}[{index}]")
    elif then != now:
        yield f"{path}: {str(then)[:100]} → {str(now)[:100]}"


def _shown(call: ToolCall) -> str:
    import json

    return f"{call.name}({json.dumps(call.arguments, ensure_ascii=False)[:200]})"

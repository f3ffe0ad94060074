"""A policy in use: `serve-model`, `export`, `chat`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Policy = Annotated[str, typer.Option(help="An arm, or a policy's folder; by default the version --alias names.")]
Alias = Annotated[str, typer.Option(help="Of the registry: champion, candidate, or a version's number.")]


def serve_model(
    policy: Policy = "",
    alias: Alias = "champion",
    port: Annotated[int, typer.Option(help="To listen on.", min=1, max=65535)] = 8000,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in: put a proxy with a key before it.")] = (
        "127.0.0.1"
    ),
) -> None:
    """Serve a policy to any OpenAI client, with tools, until Ctrl-C."""
    from steptool.config.places import PARAMS
    from steptool.config.settings import load_params
    from steptool.serving.policy import find
    from steptool.serving.server import serve_model as serve

    params = load_params(PARAMS)
    serve(params, find(params, policy or f"@{alias}"), port, host=host, ready=_say)


def export(
    policy: Annotated[str, typer.Argument(help="An arm, a policy's folder, or a version: @champion.")],
    out: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    base: Annotated[
        Path | None, typer.Option(help="Folder of an adapter's base, where it is not where it was.")
    ] = None,
) -> None:
    """Write a policy as one plain model, with what serves it anywhere."""
    from steptool.config.places import PARAMS
    from steptool.config.settings import load_params
    from steptool.serving.export import export as write_export
    from steptool.serving.policy import find

    params = load_params(PARAMS)
    _say(write_export(params, find(params, policy, base), out))


def chat(
    text: Annotated[str, typer.Argument(help="What to ask; without it and --task, you are asked.")] = "",
    policy: Policy = "",
    alias: Alias = "champion",
    task: Annotated[str, typer.Option(help="Id of a task, for its query and tools; the tools alone beside TEXT.")] = "",
) -> None:
    """Try a policy on the project's world: its calls, the replies, and what each step scores."""
    from steptool.config.places import PARAMS
    from steptool.config.settings import load_params
    from steptool.serving.chat import chat as talk
    from steptool.serving.policy import find

    params = load_params(PARAMS)
    talk(params, find(params, policy or f"@{alias}"), text=text, task=task)


def _say(text: str) -> None:
    typer.echo(text)

"""Speed and learning, each printing ratios measured in one run."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from steptool.core.errors import StepToolError


def run(main: Callable[..., None] | typer.Typer) -> None:
    """`main` as a command line; what went wrong goes to standard error, and its exit status out."""
    try:
        if isinstance(main, typer.Typer):
            main()
        else:
            typer.run(main)
    except StepToolError as error:
        print(f"steptool: {error}", file=sys.stderr)
        sys.exit(error.exit_code)

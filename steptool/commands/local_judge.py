"""`steptool local-judge fit`: the weights of annotator `local_judge`, from judged runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Fit the judge that needs no endpoint.")

Runs = Annotated[Path, typer.Argument(help="Folder of judged runs: METHOD.jsonl.gz, with verdicts.")]
Queries = Annotated[Path | None, typer.Option(help="File of their requests; queries.jsonl.gz beside them by default.")]
Out = Annotated[Path | None, typer.Option(help="File to write the weights to; without it nothing is written.")]


@app.callback()
def _group() -> None:
    """Without this a single command would be the whole."""


@app.command()
def fit(runs: Runs, queries: Queries = None, out: Out = None) -> None:
    """Fit the weights, and say how far they agree with the verdicts on queries and methods they have not seen."""
    from steptool.annotators.local.fit import fit as fitted_to
    from steptool.core.storage import write_json
    from steptool.traces.judged import judged_attempts

    found = list(judged_attempts(runs, queries))
    fitted = fitted_to(found, f"verdicts on attempts in {runs.resolve().name}")
    made = fitted.model.made
    typer.echo(f"{made['attempts']:,} judged attempts, {made['with_an_answer']:,} with an answer")
    typer.echo(f"queries not seen   {fitted.by_query}")
    if fitted.by_method is not None:
        typer.echo(f"methods not seen   {fitted.by_method}")
    if fitted.among_votes is not None:
        typer.echo(f"the votes among themselves       κ {fitted.among_votes:.2f}")
    if out is not None:
        write_json(out, fitted.model.model_dump(mode="json"))
        typer.echo(
            f"{out}: {len(fitted.model.weights)} weights and a bias; annotate: {{use: local_judge, weights: {out}}}"
        )

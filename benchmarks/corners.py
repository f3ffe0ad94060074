"""Where does step credit win? Methods and rewards, trained from the same attempts in the corners of the regime.

    python -m benchmarks.corners list
    python -m benchmarks.corners run --seeds 17,18,19 --start 17=models/sft
    python -m benchmarks.corners run --corners none-2 --variants sft,published,auto --rounds 3
    python -m benchmarks.corners run --set engine.use=benchmarks.transformers_batch:TransformersEngine
    python -m benchmarks.corners sample --corners none-2 --seeds 18     the start and its attempts alone
    python -m benchmarks.corners table
    python -m benchmarks.corners budgets --calls 3,4,6              the same attempts, cut

A cell is one policy: made by a variant, in a corner, from the attempts of one seed's SFT policy, and measured on the
dev tasks by the world's own verdicts. It is one line of JSON in a file of its own (OUT/cells/SEED.VARIANT/), so `run`
goes on where it stopped, and several of them beside each other, given the same folder, share the work.
"""

from __future__ import annotations

import fnmatch
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML

from benchmarks import run as run_command
from benchmarks.budgets import budgets as within
from benchmarks.cells import SFT, Bench, Cell, Variant, Wanted
from benchmarks.figures import START, read_cells, tables
from benchmarks.habits import Corner
from benchmarks.variants import method_of, with_settings, written_params
from steptool.config.places import PARAMS
from steptool.config.settings import apply_profile, parse_params
from steptool.core.errors import InputError, ParamsError, StepToolError
from steptool.core.storage import write_bytes
from steptool.system.environment import be_quiet
from steptool.system.memory import keep_freed_memory

OUT = Path(".steptool/corners")
PROFILES = Path("profiles")

CORNERS: list[Corner] = [
    Corner("exact-6", tasks=60, attempts=6, verdict="exact"),
    Corner("exact-2", tasks=160, attempts=2, verdict="exact"),
    Corner("wrong-2", tasks=160, attempts=2, verdict="wrong", wrong=0.3),
    Corner("none-2", tasks=160, attempts=2, verdict="none"),
    Corner("long-6", tasks=60, attempts=6, verdict="exact", profile="long"),
]

EQUAL_BUDGET: list[Corner] = [
    Corner(f"{verdict}-{attempts}", tasks=tasks, attempts=attempts, verdict=verdict)
    for verdict in ("exact", "none")
    for tasks, attempts in ((40, 8), (80, 4), (320, 1))
]
"""As many attempts as exact-2 and none-2 have, at fewer tasks or more. They run where they are named."""

AS_PUBLISHED = "reward.use=paper,reward.alpha=0.5,reward.step_cost=0,reward.budget_cost=0"
MERGED = "merge=state,smoothing=2"
VARIANTS = {
    SFT: SFT,
    "rft": "rft",
    "grpo": "grpo",
    "ppo_final": "ppo_final",
    "dpo": "dpo",
    "outcome": "step_ppo:reward.alpha=0,lambda_step=1",
    "dpo_steps": "dpo:pairs=steps",
    "gigpo": "gigpo",
    "archer": "archer",
    "release": f"step_ppo_release:{AS_PUBLISHED}",
    "potential": "step_ppo",
    "merged": f"step_ppo:{MERGED}",
    "paper": "step_ppo:reward.use=paper,reward.alpha=0.1",
    "published": f"step_ppo:{AS_PUBLISHED},lambda_step=0.95",
    "auto": "step_ppo:reward.use=auto",
    "calibrated": "step_ppo:reward.use=calibrated",
    "grounded": "step_ppo:reward.use=grounded",
    "grounded_whole": "step_ppo:reward.use=grounded,lambda_step=1",
    "grounded_merged": f"step_ppo:reward.use=grounded,{MERGED}",
}
"""Name → method and settings, as `benchmarks.variants` reads them. The first is not trained: all start from it."""
ABLATIONS = {
    "paper_no_success": "step_ppo:reward.use=paper,reward.alpha=0.1 without success",
    "paper_no_contribution": "step_ppo:reward.use=paper,reward.alpha=0.1 without contribution",
    "paper_no_cost": "step_ppo:reward.use=paper,reward.alpha=0.1,reward.step_cost=0,reward.budget_cost=0",
    "published_no_success": f"step_ppo:{AS_PUBLISHED},lambda_step=0.95 without success",
    "published_no_contribution": f"step_ppo:{AS_PUBLISHED},lambda_step=0.95 without contribution",
    "critic": "step_ppo:baseline=critic",
    "dpo_return": "dpo:prefer=return,reward.use=grounded",
}
"""Parts of the rewards left out; a critic for the other attempts; pairs by pay. They run where they are named."""

THE_CORNERS, THE_VARIANTS = ",".join(corner.name for corner in CORNERS), ",".join(VARIANTS)

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command("list")
def show() -> None:
    """Show the corners and the variants."""
    for corner in (*CORNERS, *EQUAL_BUDGET):
        known = f"{corner.wrong:.0%} of the answers judged wrongly" if corner.wrong else f"verdict: {corner.verdict}"
        print(f"{corner.name:26} {corner.tasks} tasks × {corner.attempts} attempts, {known}")
    for name, spelt in (VARIANTS | ABLATIONS).items():
        print(f"{name:26} {spelt}")


@app.command()
def table(
    out: Annotated[Path, typer.Option(help="Folder of what was made.")] = OUT,
    to: Annotated[Path | None, typer.Option(help="A file to write too.")] = None,
) -> None:
    """Print what the cells say."""
    text = "\n".join(tables(read_cells(out / "cells")))
    if to is not None:
        write_bytes(to, f"{text}\n".encode())
    print(text)


@app.command()
def budgets(
    calls: Annotated[str, typer.Option(help="Most actions of an attempt.")] = "3,4,6",
    out: Annotated[Path, typer.Option(help="Folder of what was made.")] = OUT,
) -> None:
    """Print what the measured attempts solve within fewer actions."""
    print("\n".join(within(read_cells(out / "cells"), out, _numbers(calls, "--calls"))))


Corners = Annotated[str, typer.Option(help="Such as none-2,exact-*; see `list`.")]
Seeds = Annotated[str, typer.Option(help="Such as 17,18.")]
Starts = Annotated[
    list[str] | None, typer.Option(help="SEED=FOLDER of an SFT policy, 17-long=… of long tasks; else it is trained.")
]
ProfileName = Annotated[str, typer.Option(help="A name in profiles/, for corners without one of their own.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="Over params.yaml: section.key=value.")]
Out = Annotated[Path, typer.Option(help="Folder of what is made.")]
TakeOld = Annotated[bool, typer.Option("--take-old", help="Take what other code has made.")]


@app.command()
def sample(
    corners: Corners = THE_CORNERS,
    seeds: Seeds = "17,18,19",
    start: Starts = None,
    profile: ProfileName = "",
    changes: Changes = None,
    out: Out = OUT,
) -> None:
    """Make the policies that all start from, and their attempts."""
    for corner, _, bench in _benches(corners, seeds, start, profile, changes, out, take_old=False):
        with bench:
            made = bench.first_attempts(corner)
        print(f"{corner.name}, seed {bench.params.seed}: {len(made)} attempts", flush=True)


@app.command()
def run(
    corners: Corners = THE_CORNERS,
    variants: Annotated[str, typer.Option(help="Such as sft,grpo,dpo*.")] = THE_VARIANTS,
    more: Annotated[list[str] | None, typer.Option("--variant", help="Another: NAME=method:key=value,…")] = None,
    seeds: Seeds = "17,18,19",
    rounds: Annotated[int, typer.Option(help="Each samples from the policy of the one before.")] = 1,
    split: Annotated[str, typer.Option(help="Of the tasks that policies are measured on: dev, or test once.")] = "dev",
    calls: Annotated[str, typer.Option(help="Most actions of a measured attempt, such as 3,4,6,8.")] = "",
    start: Starts = None,
    profile: ProfileName = "",
    changes: Changes = None,
    out: Out = OUT,
    take_old: TakeOld = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no table.")] = False,
) -> None:
    """Make the cells that are missing, then print the table."""
    if split not in ("dev", "test"):  # a mistake shows before the work
        raise InputError(f"no split {split!r}", where="--split", fix="use dev, or test once")
    wanted_calls = _numbers(calls, "--calls")
    own = dict(_pairs(more or (), "--variant"))
    known, failed = VARIANTS | ABLATIONS | own, 0
    named = {name: known[name] for name in _chosen(known, ",".join([variants, *own]), "variant")}
    for corner, written, bench in _benches(corners, seeds, start, profile, changes, out, take_old=take_old):
        budgets = wanted_calls or [bench.params.sample.max_calls]
        with bench:
            for wanted in _plan(corner, list(variants_of(written, named)), SFT in named, rounds, split, budgets):
                failed += not _is_made(bench, wanted, out / "cells")
    if not quiet:
        table(out)
    if failed:
        raise StepToolError(f"{failed} cells failed", where=str(out), fix="see above, then run the same command again")


def _benches(
    corners: str,
    seeds: str,
    start: Sequence[str] | None,
    profile: str,
    changes: Sequence[str] | None,
    out: Path,
    *,
    take_old: bool,
) -> Iterator[tuple[Corner, dict[str, Any], Bench]]:
    """Each corner, with what params.yaml says there, and a bench of each seed."""
    starts, known = dict(_pairs(start or (), "--start")), {each.name: each for each in (*CORNERS, *EQUAL_BUDGET)}
    for corner in (known[name] for name in _chosen(list(known), corners, "corner")):
        used = corner.profile or profile
        if used and not (PROFILES / f"{used}.yaml").exists():
            print(f"{corner.name}: left out: there is no profile {used}", file=sys.stderr, flush=True)
            continue
        for seed in _numbers(seeds, "--seeds"):
            written, place = settings_of(used, changes or (), seed), "-".join(filter(None, [str(seed), corner.profile]))
            begin = Path(starts[place]) if place in starts else None
            yield (
                corner,
                written,
                Bench(parse_params(PARAMS, written), out / f"seed{place}", begin, take_old=take_old),
            )


def settings_of(profile: str, changes: Sequence[str], seed: int) -> dict[str, Any]:
    """What params.yaml says, with a profile and then `section.key=value` laid over it."""
    written = written_params()
    if profile:
        written = YAML(typ="safe").load(apply_profile(PARAMS, PROFILES / f"{profile}.yaml"))
    for key, value in _pairs(changes, "--set"):
        *sections, name = key.split(".")
        at = written
        for section in sections:
            at = at.setdefault(section, {})
        at[name] = YAML(typ="safe").load(value)
    return {**written, "seed": seed}


def variants_of(written: dict[str, Any], named: Mapping[str, str]) -> Iterator[Variant]:
    """Those whose method and reward there are, with settings that these take; the others are said."""
    for name, spelt in named.items():
        if name == SFT:
            continue
        setting, _, hidden = spelt.partition(" without ")
        try:
            params = with_settings(written, setting)
            method = method_of(params)
        except (InputError, ParamsError) as error:
            print(f"{name}: left out: {error.found}", file=sys.stderr, flush=True)
            continue
        yield Variant(name, params, method, hidden)


def _plan(
    corner: Corner, variants: Sequence[Variant], with_start: bool, rounds: int, split: str, budgets: Sequence[int]
) -> Iterator[Wanted]:
    begin = Corner(f"{START}-{corner.profile}" if corner.profile else START, 0, 0, "exact", profile=corner.profile)
    if with_start:
        yield from (Wanted(begin, None, 0, split, calls) for calls in budgets)
    for round in range(1, rounds + 1):
        for variant in variants:
            yield from (Wanted(corner, variant, round, split, calls) for calls in budgets)


def _is_made(bench: Bench, wanted: Wanted, folder: Path) -> bool:
    """Make a cell and say what came of it. A fault of one must not cost the others."""
    label = wanted.label(bench.params.seed)
    try:
        cell = bench.cell(wanted, folder)
    except Exception as fault:  # noqa: BLE001 - a method may be anybody's
        print(f"{label}: failed: {fault}", file=sys.stderr, flush=True)
        if not isinstance(fault, StepToolError):
            traceback.print_exc()
        return False
    print(f"{label}: {_said(cell)}", flush=True)
    return True


def _said(cell: Cell | None) -> str:
    if cell is None:
        return "another process makes it"
    if cell.evaluation is None:
        return f"refused: {cell.refused}"
    trained = f", {cell.trained.seconds:.0f} s of training" if cell.trained else ""
    return f"{cell.evaluation.pass_rate or 0.0:.1%}{trained}, {cell.seconds:.0f} s of measuring"


def _chosen(names: Sequence[str] | Mapping[str, str], patterns: str, what: str) -> list[str]:
    for pattern in patterns.split(","):
        if not fnmatch.filter(names, pattern):
            raise InputError(f"no {what} {pattern!r}", where=f"--{what}s", fix=f"name some of {', '.join(names)}")
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns.split(","))]


def _numbers(written: str, option: str) -> list[int]:
    try:
        return [int(each) for each in written.split(",") if each]
    except ValueError as error:
        raise InputError(f"no numbers: {written!r}", where=option, fix="write such as 17,18") from error


def _pairs(written: Sequence[str], option: str) -> Iterator[tuple[str, str]]:
    for pair in written:
        key, _, value = pair.partition("=")
        if not key or not value:
            raise InputError(f"no NAME=VALUE: {pair!r}", where=option, fix="write both, such as 17=models/sft")
        yield key, value


if __name__ == "__main__":
    be_quiet()
    keep_freed_memory()
    run_command(app)

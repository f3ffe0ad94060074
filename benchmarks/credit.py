"""What are the rewards of single steps worth? Measured on sampled trajectories, without training.

    python -m benchmarks.credit data/scored/r1 lambda_step=0.8 reward.use=paper,reward.alpha=0.5

How well the advantages of each setting foretell the outcome of other attempts (`steptool.checks.credit`). Printed
first, as a yardstick: the outcome alone, of 2, 3, … attempts up to half. Then each setting, of half of the attempts,
and its difference to the outcome alone. The page of `validate` shows the same for the project's own setting. A setting
that does well here is still to be trained with (`benchmarks.variants`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import run
from benchmarks.variants import method_of, with_settings, written_params
from steptool.checks.credit import Agreement, Halved, Setting, outcome_of
from steptool.config.settings import load_params
from steptool.core.errors import DataError, InputError
from steptool.core.storage import read_jsonl
from steptool.core.types import ScoredTrajectory
from steptool.rewards.base import RewardForm
from steptool.training.siblings import Comparison

KNOWN = ("reward.", "lambda_step=", "merge=", "smoothing=")


def chosen(written: dict[str, Any], setting: str) -> Setting:
    """The params file with a setting such as reward.alpha=0.1,lambda_step=0.8 laid over it."""
    if strange := [pair for pair in setting.split(",") if not pair.startswith(KNOWN)]:
        known = ", ".join(name.rstrip(".=") for name in KNOWN)
        raise InputError(f"{strange[0]} is not measured here", where=setting, fix=f"settings are those of {known}")
    params = with_settings(written, f"step_ppo:{setting}")
    reward: RewardForm = params.reward.build()
    config = method_of(params).config
    return Setting(reward, Comparison(**{name: getattr(config, name) for name in Comparison.model_fields}))


def main(
    folder: Annotated[Path, typer.Argument(help="Scored trajectories, such as data/scored/r1.")],
    settings: Annotated[list[str], typer.Argument(help="Such as reward.alpha=0.1,lambda_step=0.8")],
) -> None:
    """Print how well each setting's advantages foretell the outcome of other attempts."""
    resamples, written = load_params().evaluate.resamples, written_params()
    wanted = [(setting, chosen(written, setting)) for setting in settings]
    bare = outcome_of(load_params().reward.build())
    halved = Halved(read_jsonl(folder / "scored.jsonl.gz", ScoredTrajectory), bare, resamples=resamples)
    if not halved.attempts:
        raise DataError("no task has four attempts", where=str(folder), fix="raise sample.attempts and sample again")
    if not halved.tells:
        fix = "sample more attempts, or at a higher temperature"
        raise DataError("attempts at a task part nowhere with different ends", where=str(folder), fix=fix)
    print(f"{sum(halved.attempts.values())} attempts at {len(halved.attempts)} tasks\n")
    for most in range(2, halved.half + 1):
        alone = halved.agreement(bare, most)
        print(f"{f'the outcome alone, {most} attempts':61} {alone.value:.3f} {_interval(alone)}", flush=True)
    for name, setting in wanted:
        found = halved.agreement(setting, halved.half)
        more = Agreement(found.value - alone.value, found.draws - alone.draws)
        print(f"{name:61} {found.value:.3f} {_interval(found)}  {more.value:+.3f} {_interval(more, '+')}", flush=True)


def _interval(found: Agreement, sign: str = "") -> str:
    return f"[{found.interval.low:{sign}.3f}, {found.interval.high:{sign}.3f}]"


if __name__ == "__main__":
    run(main)

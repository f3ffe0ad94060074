"""What are the rewards of single steps worth? Measured on sampled trajectories, without training.

    python -m benchmarks.credit data/scored/r1 lambda_step=0.8 reward.use=paper,reward.alpha=0.5

How well the advantages of each setting foretell the outcome of other attempts (`steptool.checks.credit`). Printed
first, as a yardstick: the outcome alone, of 2, 3, … attempts up to half. Then each setting, of half of the attempts,
and its difference to the outcome alone. The page of `validate` shows the same for the project's own setting. A setting
that does well here is still to be trained with (`benchmarks.variants`).

    python -m benchmarks.credit data/scored/r1 reward.use=calibrated --verdict none --most 2 --fit-on 60

The same where settings are given two attempts of each half, and no verdicts but on 60 tasks, which are not measured on.
The outcomes that they are to foretell stay the true ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import run
from benchmarks.habits import misjudged
from benchmarks.variants import method_of, with_settings, written_params
from steptool.checks.calibration import with_verdict
from steptool.checks.credit import Agreement, Halved, Setting, outcome_of
from steptool.config.settings import load_params
from steptool.core.errors import DataError, InputError
from steptool.core.storage import read_jsonl
from steptool.core.types import Outcome, ScoredTrajectory, Trajectory, content_hash
from steptool.rewards.base import RewardForm, fitted
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
    if config.baseline == "critic":
        fix = "set methods.step_ppo.baseline: branches in params.yaml"
        raise InputError("a critic compares no attempts, so there is nothing to measure", where=setting, fix=fix)
    return Setting(reward, Comparison(**{name: getattr(config, name) for name in Comparison.model_fields}))


def as_told(scored: Sequence[ScoredTrajectory], verdict: str, seed: int) -> list[ScoredTrajectory]:
    """What a setting is given: the same attempts with `exact` verdicts, with `none`, with `answered` for solved, or
    with a share of the answers judged wrongly, such as 0.3."""
    if verdict == "exact":
        return list(scored)
    if verdict == "none":
        return [with_verdict(each, None) for each in scored]
    if verdict == "answered":
        return [with_verdict(each, float(each.trajectory.answer is not None)) for each in scored]
    try:
        share = float(verdict)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InputError(f"no verdict {verdict!r}", where="--verdict", fix="exact, none, answered, or 0.3")
    return [with_verdict(each, misjudged(_as_judged(each), share, seed).outcome.solved) for each in scored]


def _as_judged(scored: ScoredTrajectory) -> Trajectory:
    """The attempt with the annotator's verdict in place of the session's."""
    return scored.trajectory.model_copy(update={"outcome": Outcome(solved=scored.solved)})


def main(
    folder: Annotated[Path, typer.Argument(help="Scored trajectories, such as data/scored/r1.")],
    settings: Annotated[list[str], typer.Argument(help="Such as reward.alpha=0.1,lambda_step=0.8")],
    verdict: Annotated[
        str, typer.Option(help="That settings are given: exact, none, answered, or 0.3 wrong.")
    ] = "exact",
    most: Annotated[int, typer.Option(help="Attempts that settings are given, of each half; 0: all.")] = 0,
    fit_on: Annotated[int, typer.Option(help="Tasks with exact verdicts to fit forms to instead.")] = 0,
) -> None:
    """Print how well each setting's advantages foretell the outcome of other attempts."""
    if most == 1:
        raise InputError("one attempt is compared with none", where="--most", fix="write 2 or more, or 0 for all")
    params, written = load_params(), written_params()
    wanted = [(setting, chosen(written, setting)) for setting in settings]
    bare = outcome_of(params.reward.build())
    scored = read_jsonl(folder / "scored.jsonl.gz", ScoredTrajectory)
    known = set(sorted({each.trajectory.task_id for each in scored}, key=content_hash)[:fit_on])
    rest = [each for each in scored if each.trajectory.task_id not in known]
    told = as_told(rest, verdict, params.seed)
    seen = [each for each in scored if each.trajectory.task_id in known] if fit_on else told
    halved = Halved(rest, bare, resamples=params.evaluate.resamples)
    if not halved.attempts:
        raise DataError("no task has four attempts", where=str(folder), fix="raise sample.attempts and sample again")
    if not halved.tells:
        fix = "sample more attempts, or at a higher temperature"
        raise DataError("attempts at a task part nowhere with different ends", where=str(folder), fix=fix)
    print(f"{sum(halved.attempts.values())} attempts at {len(halved.attempts)} tasks; verdicts: {verdict}\n")
    half = min(most or halved.half, halved.half)
    for count in range(2, half + 1):
        alone = halved.agreement(bare, count, told)
        print(f"{f'the outcome alone, {count} attempts':61} {alone.value:.3f} {_interval(alone)}", flush=True)
    for name, setting in wanted:
        found = halved.agreement(replace(setting, reward=fitted(setting.reward, seen)), half, told)
        more = Agreement(found.value - alone.value, found.draws - alone.draws)
        print(f"{name:61} {found.value:.3f} {_interval(found)}  {more.value:+.3f} {_interval(more, '+')}", flush=True)


def _interval(found: Agreement, sign: str = "") -> str:
    return f"[{found.interval.low:{sign}.3f}, {found.interval.high:{sign}.3f}]"


if __name__ == "__main__":
    run(main)

"""What are the rewards of single steps worth? Measured on sampled trajectories, without training.

    python -m benchmarks.credit data/scored/r1 lambda_step=0.8 reward.use=paper,reward.alpha=0.5

Where attempts at a task part, half of them say what each way is worth by a setting's rewards, the other half by the
bare outcome and its costs (alpha 0, lambda 1). The better the two agree, the more the setting teaches from these
samples. Agreement is the sum of products over the root of the sums of squares, over ways to halve the attempts and all
ways that the other half found; one that a setting's half did not find, or holds equal, is a 0 of it.

Printed first, as a yardstick: the outcome alone, of 2, 3, … attempts up to half. Then each setting, of half of the
attempts, and its difference to the outcome alone. Intervals are 95 % by a bootstrap over tasks. It sees the signal, not
what an optimiser makes of it: a setting that does well here is still to be trained with (`benchmarks.variants`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import run
from benchmarks.variants import method_of, with_settings, written_params
from steptool.config.settings import load_params
from steptool.core.errors import DataError, InputError
from steptool.core.storage import read_jsonl
from steptool.core.types import ScoredTrajectory
from steptool.rewards.base import RewardForm, rewards_of
from steptool.training.episode import Episode, episode
from steptool.training.siblings import Comparison, advantages_of_attempts

MOST_HALVES = 20
KNOWN = ("reward.", "lambda_step=")
Way = tuple[Hashable, int]
"""A history, and the token that was taken there."""
Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True)
class Setting:
    reward: RewardForm
    comparison: Comparison


def advantages(attempts: Sequence[Episode], setting: Setting) -> dict[Way, float]:
    """Where these attempts part: the advantage of each way, as training has it."""
    values = advantages_of_attempts(
        attempts, [item.rewards for item in attempts], setting.comparison, setting.reward.gamma
    )
    found = {
        (history, token): value
        for item, own in zip(attempts, values, strict=True)
        for history, token, value in zip(item.histories, item.targets, own, strict=True)
    }
    ways = Counter(history for history, _ in found)
    return {way: value for way, value in found.items() if ways[way[0]] > 1}


def halves(count: int, rng: np.random.Generator) -> list[tuple[list[int], list[int]]]:
    """Two halves of `count` attempts, in every way or in MOST_HALVES drawn ones; of an odd count one is left out."""
    half = count // 2
    if count <= 6:
        taken = [list(chosen) for chosen in combinations(range(count), half)]
        return [(chosen, [index for index in range(count) if index not in chosen][:half]) for chosen in taken]
    drawn = [rng.permutation(count).tolist() for _ in range(MOST_HALVES)]
    return [(order[:half], order[half : 2 * half]) for order in drawn]


def outcomes(attempts: Sequence[Episode], bare: Setting, seed: int) -> list[tuple[list[int], dict[Way, float]]]:
    """Of each halving of the attempts at one task: one half, and what the other half's outcome says of the ways."""
    ways = halves(len(attempts), np.random.default_rng(seed))
    return [(half, advantages([attempts[index] for index in rest], bare)) for half, rest in ways]


def moments(
    own: Sequence[Episode], halved: Sequence[tuple[list[int], dict[Way, float]]], setting: Setting, *, most: int
) -> Array:
    """Sums of xy, xx, yy for one task: x by the setting in at most `most` attempts of a half, y of `outcomes` in the
    other. Averaged over the halvings, so that tasks count alike however many attempts they have."""
    total = np.zeros(3)
    for half, y in halved:
        x = advantages([own[index] for index in half[:most]], setting)
        pairs = np.array([(x.get(way, 0.0), value) for way, value in y.items()]).reshape(-1, 2)
        total += [pairs[:, 0] @ pairs[:, 1], pairs[:, 0] @ pairs[:, 0], pairs[:, 1] @ pairs[:, 1]]
    return total / len(halved)


def agreement(sums: Array) -> Array:
    """[..., 3] -> [...], in [-1, 1]; 0 where nothing varies."""
    scale = np.sqrt(sums[..., 1] * sums[..., 2])
    return np.divide(sums[..., 0], scale, out=np.zeros_like(scale), where=scale > 0)


def episodes(scored: Sequence[ScoredTrajectory], setting: Setting) -> dict[str, list[Episode]]:
    """Task -> its attempts that ended by themselves, where these are four or more."""
    by_task: dict[str, list[Episode]] = defaultdict(list)
    for item, rewards in zip(scored, rewards_of(setting.reward, scored), strict=True):
        found = episode(item, rewards)
        if found is not None and not found.truncated:
            by_task[found.task_id].append(found)
    return {task: attempts for task, attempts in by_task.items() if len(attempts) >= 4}


def chosen(written: dict[str, Any], setting: str) -> Setting:
    """The params file with a setting such as reward.alpha=0.1,lambda_step=0.8 laid over it."""
    if strange := [pair for pair in setting.split(",") if not pair.startswith(KNOWN)]:
        known = ", ".join(name.rstrip(".=") for name in KNOWN)
        raise InputError(f"{strange[0]} is not measured here", where=setting, fix=f"settings are those of {known}")
    params = with_settings(written, f"step_ppo:{setting}")
    reward: RewardForm = params.reward.build()
    return Setting(reward, Comparison(lambda_step=method_of(params).config.lambda_step))


def main(
    folder: Annotated[Path, typer.Argument(help="Scored trajectories, such as data/scored/r1.")],
    settings: Annotated[list[str], typer.Argument(help="Such as reward.alpha=0.1,lambda_step=0.8")],
) -> None:
    """Print how well each setting's advantages foretell the outcome of other attempts."""
    resamples, written = load_params().evaluate.resamples, written_params()
    wanted = [(setting, chosen(written, setting)) for setting in settings]
    bare = chosen(written, "reward.alpha=0,lambda_step=1")
    scored = read_jsonl(folder / "scored.jsonl.gz", ScoredTrajectory)
    outcome = episodes(scored, bare)
    if not outcome:
        raise DataError("no task has four attempts", where=str(folder), fix="raise sample.attempts and sample again")
    attempts = [len(each) for each in outcome.values()]
    halved = {task: outcomes(each, bare, seed) for seed, (task, each) in enumerate(outcome.items())}
    if not any(y for ways in halved.values() for _, each in ways for y in each.values()):
        fix = "sample more attempts, or at a higher temperature"
        raise DataError("attempts at a task part nowhere with different ends", where=str(folder), fix=fix)
    draws = np.random.default_rng(0).integers(len(outcome), size=(resamples, len(outcome)))

    def measured(setting: Setting, most: int) -> tuple[float, Array]:
        """Of all tasks, and of each draw of tasks."""
        own = episodes(scored, setting)
        sums = np.array([moments(own[task], halved[task], setting, most=most) for task in halved])
        return float(agreement(sums.sum(axis=0))), agreement(sums[draws].sum(axis=1))

    def interval(values: Array, sign: str = "") -> str:
        low, high = np.percentile(values, [2.5, 97.5])
        return f"[{low:{sign}.3f}, {high:{sign}.3f}]"

    print(f"{sum(attempts)} attempts at {len(attempts)} tasks\n")
    half = max(attempts) // 2
    for most in range(2, half + 1):
        alone, spread_alone = measured(bare, most)
        print(f"{f'the outcome alone, {most} attempts':61} {alone:.3f} {interval(spread_alone)}", flush=True)
    for name, setting in wanted:
        value, spread = measured(setting, half)
        difference = f"{value - alone:+.3f} {interval(spread - spread_alone, '+')}"
        print(f"{name:61} {value:.3f} {interval(spread)}  {difference}", flush=True)


if __name__ == "__main__":
    run(main)

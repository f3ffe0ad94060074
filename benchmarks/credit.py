"""Do the rewards of single steps foretell how attempts end? Measured on sampled trajectories, without training.

    python -m benchmarks.credit data/scored/r1 reward.alpha=0 train.lambda_step=0.8 reward.form=paper

Where attempts at a task part, each half of them says what the ways are worth: by a setting's rewards in one half, by
the bare outcome and its costs (alpha 0, lambda 1) in the other. A setting whose advantages agree better with what other
attempts came to teaches more from the same samples. Printed for each setting: the correlation of the two over all ways
to halve the attempts, a 95 % bootstrap interval over tasks, and the paired difference to the first setting. It says
nothing of tasks where no two attempts part, and needs four attempts at a task or more.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.variants import with_settings
from steptool.errors import DataError, StepToolError
from steptool.params import Params, load_params
from steptool.rewards.shaping import step_rewards
from steptool.storage import read_jsonl
from steptool.training.advantages import returns_to_go, where_attempts_part
from steptool.training.batch import Episode, episode
from steptool.types import ScoredTrajectory

MOST_HALVES = 20
Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def advantages(attempts: Sequence[Episode], decay: float) -> dict[tuple[Hashable, int], float]:
    """History and token, where these attempts part: the advantage of that token."""
    returns = [returns_to_go(item.rewards, decay) for item in attempts]
    histories, tokens = [item.histories for item in attempts], [item.targets for item in attempts]
    by_token = [[own[step] for step in item.step_ids] for item, own in zip(attempts, returns, strict=True)]
    return {
        (history, token): value
        for attempt in zip(histories, tokens, where_attempts_part(histories, tokens, by_token), strict=True)
        for history, token, value in zip(*attempt, strict=True)
        if value
    }


def halves(count: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Ways to take half of `count` attempts; all of them, or MOST_HALVES drawn."""
    if count <= 6:
        return list(combinations(range(count), count // 2))
    return [tuple(rng.permutation(count)[: count // 2]) for _ in range(MOST_HALVES)]


def moments(own: Sequence[Episode], outcome: Sequence[Episode], decay: float, plain: float, seed: int) -> Array:
    """Sums of xy, xx, yy: x by the setting in one half, y by the outcome in the other. One task; a way weighs the
    same in every halving, so that tasks count and not the number of halvings."""
    total = np.zeros(3)
    ways = halves(len(own), np.random.default_rng(seed))
    for half in ways:
        rest = [index for index in range(len(own)) if index not in half]
        x = advantages([own[index] for index in half], decay)
        y = advantages([outcome[index] for index in rest], plain)
        pairs = np.array([(x[way], y[way]) for way in x.keys() & y.keys()])
        if len(pairs):
            total += [pairs[:, 0] @ pairs[:, 1], pairs[:, 0] @ pairs[:, 0], pairs[:, 1] @ pairs[:, 1]]
    return total / len(ways)


def correlation(sums: Array) -> Array:
    """[..., 3] -> [...]; 0 where nothing varies."""
    scale = np.sqrt(sums[..., 1] * sums[..., 2])
    return np.divide(sums[..., 0], scale, out=np.zeros_like(scale), where=scale > 0)


def episodes(scored: Sequence[ScoredTrajectory], params: Params) -> dict[str, list[Episode]]:
    """Task -> its attempts that ended by themselves."""
    by_task: dict[str, list[Episode]] = defaultdict(list)
    for item in scored:
        found = episode(item, step_rewards(item, params.reward, params.train.gamma_step))
        if found is not None and not found.truncated:
            by_task[found.task_id].append(found)
    return {task: attempts for task, attempts in by_task.items() if len(attempts) >= 4}


def main(
    folder: Annotated[Path, typer.Argument(help="Scored trajectories, such as data/scored/r1.")],
    settings: Annotated[list[str], typer.Argument(help="Such as reward.alpha=0.1,train.lambda_step=0.8")],
) -> None:
    """Print how well each setting's advantages foretell the outcome of other attempts."""
    params = load_params()
    wanted = [(setting, with_settings(params, f"ppo:{setting}")[1]) for setting in settings]
    bare = with_settings(params, "ppo:reward.alpha=0,train.lambda_step=1")[1]
    scored = read_jsonl(folder / "scored.jsonl.gz", ScoredTrajectory)
    outcome = episodes(scored, bare)
    if not outcome:
        raise DataError("no task has four attempts", where=str(folder), fix="raise sample.attempts and sample again")
    draws = np.random.default_rng(0).integers(len(outcome), size=(params.evaluate.resamples, len(outcome)))
    print(f"{len(scored)} trajectories of {len(outcome)} tasks")
    first: Array | None = None
    for setting, chosen in wanted:
        own = episodes(scored, chosen)
        decay, plain = (p.train.gamma_step * p.train.lambda_step for p in (chosen, bare))
        sums = np.array([moments(own[task], outcome[task], decay, plain, seed) for seed, task in enumerate(outcome)])
        value, spread = float(correlation(sums.sum(axis=0))), correlation(sums[draws].sum(axis=1))
        low, high = np.percentile(spread, [2.5, 97.5])
        line = f"{value:.3f} [{low:.3f}, {high:.3f}]"
        if first is None:
            first = np.append(spread, value)
        else:
            low, high = np.percentile(spread - first[:-1], [2.5, 97.5])
            line += f"  {value - first[-1]:+.3f} [{low:+.3f}, {high:+.3f}]"
        print(f"{setting:44} {line}", flush=True)


if __name__ == "__main__":
    try:
        typer.run(main)
    except StepToolError as error:
        print(f"steptool: {error}", file=sys.stderr)
        sys.exit(error.exit_code)

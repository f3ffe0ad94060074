"""What are the rewards of single steps worth? Measured on sampled trajectories, without training.

    python -m benchmarks.credit data/scored/r1 train.lambda_step=0.8 reward.form=paper,reward.alpha=0.5

Where attempts at a task part, half of them say what each way is worth by a setting's rewards, the other half by the
bare outcome and its costs (alpha 0, lambda 1). The better the two agree, the more the setting teaches from the same
samples. Printed for the outcome alone and for each setting: the correlation over ways to halve the attempts, the
difference, and what the setting is worth in attempts: how many times as many the outcome alone would need to say as
much (Spearman-Brown: n times the attempts raise a reliability r to n r / (1 + (n - 1) r)). Intervals are 95 % by a
bootstrap over tasks. It says nothing of tasks where no two attempts part, and needs four attempts at a task or more.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
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
    found = {
        (history, token): value
        for attempt in zip(histories, tokens, where_attempts_part(histories, tokens, by_token), strict=True)
        for history, token, value in zip(*attempt, strict=True)
    }
    ways = Counter(history for history, _ in found)
    return {way: value for way, value in found.items() if ways[way[0]] > 1}


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


def worth(correlations: Array, alone: Array) -> Array:
    """Times the attempts that the outcome alone would need to correlate as well: 1 where both are equal.

    `alone` is the reliability r of the outcome, as both halves are measured alike; a setting's own is R with
    correlation = sqrt(r R). Infinite where R reaches 1.
    """
    own = np.sign(correlations) * correlations**2 / alone
    times = np.full_like(own, np.inf)
    return np.divide(own * (1 - alone), alone * (1 - own), out=times, where=own < 1)


def episodes(scored: Sequence[ScoredTrajectory], params: Params) -> dict[str, list[Episode]]:
    """Task -> its attempts that ended by themselves, where these are four or more."""
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

    def measured(chosen: Params) -> tuple[float, Array]:
        """Of all tasks, and of each draw of tasks."""
        own = episodes(scored, chosen)
        decay, plain = (p.train.gamma_step * p.train.lambda_step for p in (chosen, bare))
        sums = np.array([moments(own[task], outcome[task], decay, plain, seed) for seed, task in enumerate(outcome)])
        return float(correlation(sums.sum(axis=0))), correlation(sums[draws].sum(axis=1))

    def interval(values: Array) -> str:
        low, high = np.percentile(values, [2.5, 97.5])
        return f"[{low:.3f}, {high:.3f}]"

    print(f"{len(scored)} trajectories of {len(outcome)} tasks\n")
    print(f"{'setting':44} {'correlation':21} {'difference':24} worth in attempts")
    alone, spread_alone = measured(bare)
    print(f"{'the outcome alone':44} {alone:.3f} {interval(spread_alone)}", flush=True)
    for setting, chosen in wanted:
        value, spread = measured(chosen)
        times = float(worth(np.array(value), np.array(alone)))
        print(
            f"{setting:44} {value:.3f} {interval(spread)}  {value - alone:+.3f} {interval(spread - spread_alone):17}"
            f" {times:.2f} {interval(worth(spread, spread_alone))}",
            flush=True,
        )


if __name__ == "__main__":
    try:
        typer.run(main)
    except StepToolError as error:
        print(f"steptool: {error}", file=sys.stderr)
        sys.exit(error.exit_code)

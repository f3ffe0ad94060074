"""How well do the rewards of a setting foretell the outcomes of other attempts? Measured on samples, without training.

Where attempts at a task part, half of them say what each way is worth by a setting's rewards, the other half by the
bare outcome and its costs. The better the two agree, the more the setting teaches from these samples. Agreement is the
sum of products over the root of the sums of squares, over ways to halve the attempts and all ways that the other half
found; one that a setting's half did not find, or holds equal, is a 0 of it.

    six attempts    token 10: solved solved solved      token 12: unsolved unsolved unsolved
    a half of 3     2 of the one kind, 1 of the other: (.5, -1) against (1, -.5) of the other half
    agreement       1 / 1.25 = .8

It sees the signal, not what an optimiser makes of it. Intervals are 95 %, by a bootstrap over tasks; all settings that
one `Halved` measures share its draws, so that they can be compared draw by draw.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, compress

import numpy as np
from numpy.typing import NDArray

from steptool.core.types import ScoredTrajectory
from steptool.rewards.base import RewardForm, rewards_of
from steptool.rewards.costs import Priced, costs_of, less_costs, verdict_of
from steptool.rewards.evidence import Interval, cosine, interval_of
from steptool.training.episode import Episode, episode
from steptool.training.siblings import Comparison, advantages_of_attempts

MOST_HALVES = 20
LEAST_ATTEMPTS = 4
"""At a task, for each half to compare two."""
Way = tuple[Hashable, int]
"""A history, and the token that was taken there."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    reward: RewardForm
    comparison: Comparison


class Outcome:
    """The verdict less the costs: r_t = −cost, r_T = solved − cost − budget."""

    needs_verdict = True

    def __init__(self, costs: Priced) -> None:
        self.costs = costs

    @property
    def gamma(self) -> float:
        return self.costs.gamma

    def rewards(self, scored: ScoredTrajectory) -> Sequence[float]:
        return less_costs(scored, self.costs, verdict_of(scored))


def outcome_of(form: RewardForm) -> Setting:
    """The bare outcome as it is compared with `form`: with its costs, where it has such settings, and its gamma."""
    return Setting(Outcome(costs_of(form)), Comparison(lambda_step=1.0))


@dataclass(frozen=True)
class Agreement:
    """In [-1, 1]: of all tasks, and [resamples] of each draw of tasks."""

    value: float
    draws: Floats

    @property
    def interval(self) -> Interval:
        return interval_of(self.value, self.draws)


class Halved:
    """Attempts at each task, halved in several ways, and what one half's outcomes say of the ways."""

    def __init__(self, scored: Sequence[ScoredTrajectory], bare: Setting, *, resamples: int) -> None:
        """`bare`: the outcome alone. Raises DataError for attempts that were not sampled."""
        self._scored = scored
        self.bare = bare
        of_outcome = episodes(scored, bare)
        self.attempts = {task: len(each) for task, each in of_outcome.items()}
        self._halves = {task: outcomes(each, bare, seed) for seed, (task, each) in enumerate(of_outcome.items())}
        tasks = len(self.attempts)
        self._draws = np.random.default_rng(0).integers(max(tasks, 1), size=(resamples, tasks))

    @property
    def half(self) -> int:
        """Most attempts of a half."""
        return max(self.attempts.values(), default=0) // 2

    @property
    def tells(self) -> bool:
        """Whether attempts part anywhere with different ends."""
        return any(y for ways in self._halves.values() for _, each in ways for y in each.values())

    def agreement(self, setting: Setting, most: int, scored: Sequence[ScoredTrajectory] | None = None) -> Agreement:
        """Of at most `most` attempts of a half. `scored`: the same attempts, judged in another way."""
        own = episodes(self._scored if scored is None else scored, setting)
        sums = np.array([moments(own[task], halves, setting, most=most) for task, halves in self._halves.items()])
        return Agreement(float(cosine(sums.sum(axis=0))), cosine(sums[self._draws].sum(axis=1)))


def advantages(attempts: Sequence[Episode], setting: Setting) -> dict[Way, float]:
    """The advantage of each way, as training has it; the mean of those that took it."""
    rewards = [item.rewards for item in attempts]
    values = advantages_of_attempts(attempts, rewards, setting.comparison, setting.reward.gamma)
    found: dict[Way, list[float]] = defaultdict(list)
    for item, own in zip(attempts, values, strict=True):
        for history, token, value in zip(item.histories, item.targets, own, strict=True):
            found[history, token].append(value)
    return {way: sum(values) / len(values) for way, values in found.items()}


def halves(count: int, rng: np.random.Generator) -> list[tuple[list[int], list[int]]]:
    """Two halves of `count` attempts, in every way or in MOST_HALVES drawn ones; of an odd count one is left out."""
    half = count // 2
    if count <= 6:
        taken = [list(chosen) for chosen in combinations(range(count), half)]
        return [(chosen, [index for index in range(count) if index not in chosen][:half]) for chosen in taken]
    drawn = [rng.permutation(count).tolist() for _ in range(MOST_HALVES)]
    return [(order[:half], order[half : 2 * half]) for order in drawn]


def outcomes(attempts: Sequence[Episode], bare: Setting, seed: int) -> list[tuple[list[int], dict[Way, float]]]:
    """Of each halving of the attempts at one task: one half, and what the other half's outcome says of the ways where
    these part. A setting that merges states may tell ways apart that its half has not seen part."""
    found = []
    for half, rest in halves(len(attempts), np.random.default_rng(seed)):
        values = advantages([attempts[index] for index in rest], bare)
        ways = Counter(history for history, _ in values)
        found.append((half, {way: value for way, value in values.items() if ways[way[0]] > 1}))
    return found


def moments(
    own: Sequence[Episode], halved: Sequence[tuple[list[int], dict[Way, float]]], setting: Setting, *, most: int
) -> Floats:
    """Sums of xy, xx, yy for one task: x by the setting in at most `most` attempts of a half, y of `outcomes` in the
    other. Averaged over the halvings, so that tasks count alike however many attempts they have."""
    total = np.zeros(3)
    for half, y in halved:
        x = advantages([own[index] for index in half[:most]], setting)
        pairs = np.array([(x.get(way, 0.0), value) for way, value in y.items()]).reshape(-1, 2)
        total += [pairs[:, 0] @ pairs[:, 1], pairs[:, 0] @ pairs[:, 0], pairs[:, 1] @ pairs[:, 1]]
    return total / len(halved)


def episodes(scored: Sequence[ScoredTrajectory], setting: Setting) -> dict[str, list[Episode]]:
    """Task -> its attempts that ended by themselves, where these are four or more."""
    by_task: dict[str, list[Episode]] = defaultdict(list)
    for item, rewards in zip(scored, rewards_of(setting.reward, scored), strict=True):
        found = episode(item, rewards)
        if found is not None and not found.truncated:
            by_task[found.task_id].append(found)
    enough = {task: attempts for task, attempts in by_task.items() if len(attempts) >= LEAST_ATTEMPTS}
    if setting.comparison.merge != "tokens":
        return enough
    return {task: where_they_part(attempts) for task, attempts in enough.items()}


def where_they_part(attempts: Sequence[Episode]) -> list[Episode]:
    """The attempts at one task, with no other sampled tokens than those at which two of them differ: at all others no
    setting that compares them by their tokens sees a difference, and there are a few of these to a hundred others."""
    taken: dict[Hashable, set[int]] = defaultdict(set)
    known = [(item.histories, item.targets) for item in attempts]
    for histories, targets in known:
        for history, token in zip(histories, targets, strict=True):
            taken[history].add(token)
    return [
        _of_tokens(item, [len(taken[each]) > 1 for each in histories])
        for item, (histories, _) in zip(attempts, known, strict=True)
    ]


def _of_tokens(item: Episode, kept: Sequence[bool]) -> Episode:
    return replace(
        item,
        predict=tuple(compress(item.predict, kept)),
        step_ids=tuple(compress(item.step_ids, kept)),
        engine_logprobs=tuple(compress(item.engine_logprobs, kept)),
    )

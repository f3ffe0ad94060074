"""Credit relative to a group: the attempts at one task (GRPO), and the steps that were taken in one state (GiGPO). Pure
functions on lists of numbers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence

from steptool.training.siblings import returns_to_go

NO_SPREAD = 1e-9
"""A standard deviation below it is none."""


def relative(values: Sequence[float], *, scaled: bool) -> list[float]:
    """x - mean, and where `scaled` divided by the standard deviation (of a sample, n - 1); 0 where all are equal.

    GRPO (arXiv 2402.03300) scales. Dr. GRPO (2503.20783) does not: scaled, a group that differs a little counts as much
    as one that differs a lot.
    """
    mean = math.fsum(values) / len(values)
    centred = [value - mean for value in values]
    spread = math.sqrt(math.fsum(value**2 for value in centred) / max(1, len(values) - 1))
    if spread < NO_SPREAD:
        return [0.0] * len(values)
    return [value / spread for value in centred] if scaled else centred


def group_in_group(
    rewards: Sequence[Sequence[float]],
    states: Sequence[Sequence[Hashable]],
    *,
    gamma: float,
    step_weight: float,
    scaled: bool,
) -> list[list[float]]:
    """Step advantages of the attempts at one task (GiGPO, arXiv 2505.10978):

        A_t = relative(R)_i + w relative(G)_t       R = sum r_t over the attempt, among the attempts
                                                    G_t = sum_l gamma^l r_{t+l}, among the steps in the same state

    states[i][t] is the state that step t of attempt i was taken in. A state that was visited once has no second term;
    one that an attempt visits several times counts each time.
    """
    episodes = relative([math.fsum(own) for own in rewards], scaled=scaled)
    visits: dict[Hashable, list[tuple[int, int]]] = defaultdict(list)
    returns = [returns_to_go(own, gamma) for own in rewards]
    advantages = [[whole] * len(own) for whole, own in zip(episodes, rewards, strict=True)]
    for index, own in enumerate(states):
        for step, state in enumerate(own):
            visits[state].append((index, step))
    for places in visits.values():
        among = relative([returns[index][step] for index, step in places], scaled=scaled)
        for (index, step), value in zip(places, among, strict=True):
            advantages[index][step] += step_weight * value
    return advantages

"""Log-probabilities that an engine gave to the same token in the same place: within a round, and in two of them.

this round       prompt · find · {"id"    -0.31          within a round they differ by rounding alone
another attempt  prompt · find · {"id"    -0.31
round before     prompt · find · {"id"    -0.55          another policy: another probability
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, islice
from statistics import fmean, median
from typing import NamedTuple

from steptool.core.types import Trajectory

CERTAIN = 0.01
"""Nats. A token that is likelier than exp(-this) under both policies tells nothing: most are."""
MOST_TOKENS = 1_000_000
"""Sampled tokens that are looked at: more would need gigabytes, and say the same."""
ROUNDING = {"float32": 1e-3, "bfloat16": 1e-2}
"""Nats by which the log-probability of one policy differs from batch to batch, at most, by the type of computation."""

Place = tuple[int, int]
"""Hash of all that came before a token, and the token."""


class Agreement(NamedTuple):
    compared: int
    """Tokens in places that both rounds have, without those that are certain in both."""
    same: int
    """Those of them to which both give the same log-probability."""


def places(trajectories: Sequence[Trajectory]) -> dict[Place, list[float]]:
    """Sampled tokens in their places, with the log-probabilities that they were given; the first MOST_TOKENS."""
    found: dict[Place, list[float]] = defaultdict(list)
    for place, logprob in islice(chain.from_iterable(map(_sampled, trajectories)), MOST_TOKENS):
        found[place].append(logprob)
    return found


def _sampled(trajectory: Trajectory) -> Iterator[tuple[Place, float]]:
    seen = list(accumulate(trajectory.token_ids, lambda before, token: hash((before, token)), initial=0))
    at = 0
    for step in trajectory.steps:
        at += len(step.context_ids)
        for token, logprob in zip(step.action_ids, step.action_logprobs, strict=True):
            yield (seen[at], token), logprob
            at += 1


def agreement(here: dict[Place, list[float]], before: dict[Place, list[float]], rounding: float) -> Agreement:
    """How often two rounds give the same token in the same place the same log-probability, within `rounding` nats."""
    pairs = [(median(own), median(before[place])) for place, own in here.items() if place in before]
    telling = [pair for pair in pairs if min(pair) < -CERTAIN]
    return Agreement(len(telling), sum(abs(now - then) <= rounding for now, then in telling))


class Spread(NamedTuple):
    tokens: int
    """That several attempts of one round sampled in the same place."""
    mean: float
    """Mean distance of their log-probabilities from the median of their place, in nats."""
    largest: float


def spread(here: dict[Place, list[float]]) -> Spread:
    """How far an engine is from itself."""
    distances = [abs(value - median(own)) for own in here.values() if len(own) > 1 for value in own]
    return Spread(len(distances), fmean(distances), max(distances)) if distances else Spread(0, 0.0, 0.0)

"""What difference between two policies a number of test tasks can show. Pure.

Both policies try the same n tasks, and the exact sign test of `compare` (McNemar's) looks at those that one of them
solves and the other does not. Of all tasks the share ψ is such, and the better policy wins p = (ψ + d) / 2 of all where
d is the true difference. The number of these tasks is m ~ Binomial(n, ψ), and of m it wins x ~ Binomial(m, p / ψ); the
test at confidence c takes x for a difference from k(m) on, the smallest k with P(Binomial(m, ½) ≥ k) ≤ (1 - c) / 2:

    power(d) = Σ_m P(m) · P(x ≥ k(m) | m)

How often two policies differ is not known before: ψ is assumed, and at least d, for a difference needs tasks that
differ. Source of the test: McNemar (1947), Psychometrika 12, 153; the power is this sum, computed exactly.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom

DISCORDANCE = 0.3
"""Assumed share of the tasks that one of two policies solves and the other does not."""
POWER = 0.8
CONFIDENCE = 0.95


def power_of(
    tasks: int, difference: float, *, discordance: float = DISCORDANCE, confidence: float = CONFIDENCE
) -> float:
    """Chance that a true `difference` of the solve rates, in (0, 1], is found by comparing on so many tasks."""
    differing = max(discordance, difference)
    counts = np.arange(tasks + 1)
    least_wins = binom.isf((1 - confidence) / 2, counts, 0.5) + 1
    wins = (differing + difference) / (2 * differing)
    found = binom.sf(least_wins - 1, counts, wins)
    return float(np.sum(binom.pmf(counts, tasks, differing) * found))


def smallest_difference(
    tasks: int, *, discordance: float = DISCORDANCE, power: float = POWER, confidence: float = CONFIDENCE
) -> float | None:
    """The smallest true difference that is found with this power, in (0, 1]; None where not even the largest is."""

    def lacking(difference: float) -> float:
        return power_of(tasks, difference, discordance=discordance, confidence=confidence) - power

    return None if lacking(1.0) < 0 else float(brentq(lacking, 1e-9, 1.0, xtol=1e-4))


def tasks_needed(difference: float, *, discordance: float = DISCORDANCE, power: float = POWER) -> int:
    """How many tasks show a `difference` in (0, 1], to about one in a hundred."""
    few, many = 1, 2
    while power_of(many, difference, discordance=discordance) < power:
        few, many = many, 2 * many
    while many - few > max(1, many // 100):
        middle = (few + many) // 2
        few, many = (few, middle) if power_of(middle, difference, discordance=discordance) >= power else (middle, many)
    return many

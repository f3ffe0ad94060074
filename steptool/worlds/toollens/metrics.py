"""What the first k different tools that an attempt calls are worth. Pure.

tools that help, with grades    a 2, b 1, c 1
called                          a, x, a, c           the first three that differ: a, x, c

recall@3    2 of 3              complete@3    no
nDCG@3      (2/log₂2 + 0/log₂3 + 1/log₂4) / (2/log₂2 + 1/log₂3 + 1/log₂4)

A missing attempt counts as one that called nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import log2
from typing import Any, ClassVar

from steptool.core.fields import Many, Settings
from steptool.core.types import Reference, ScoredTrajectory, Task, Trajectory


class AtSettings(Settings):
    k: Many = 5
    """Different tools that count, the first ones."""


class _At:
    """A metric of the first k."""

    is_rate: ClassVar[bool] = True
    says: ClassVar[str]

    Config = AtSettings

    def __init__(self, config: AtSettings) -> None:
        self.config = config
        self.describes = self.says.format(k=config.k)

    def missing(self, reference: Reference) -> tuple[float, float]:
        return 0.0, float(bool(reference.relevant_tools))


class RecallAt(_At):
    says = "share of the relevant tools among the first {k} different ones that are called"

    def fraction(self, scored: ScoredTrajectory, task: Task, reference: Reference) -> tuple[float, float]:
        relevant = set(reference.relevant_tools)
        if not relevant:
            return 0.0, 0.0
        return len(relevant & set(called(scored.trajectory)[: self.config.k])) / len(relevant), 1.0


class CompleteAt(_At):
    says = "share of attempts that call all relevant tools among the first {k} different ones"

    def fraction(self, scored: ScoredTrajectory, task: Task, reference: Reference) -> tuple[float, float]:
        relevant = set(reference.relevant_tools)
        if not relevant:
            return 0.0, 0.0
        return float(relevant <= set(called(scored.trajectory)[: self.config.k])), 1.0


class NdcgAt(_At):
    """Reads the grades from the evidence of the outcome, where the world wrote them."""

    says = "normalised discounted gain of the first {k} different tools that are called"

    def fraction(self, scored: ScoredTrajectory, task: Task, reference: Reference) -> tuple[float, float]:
        gains, best = read_gains(scored.trajectory.outcome.evidence)
        k = self.config.k
        return (gain(gains[:k]) / gain(best[:k]), 1.0) if best else self.missing(reference)


def called(trajectory: Trajectory) -> list[str]:
    """Names of the tools that were called, each once, in the order of their first calls."""
    return list(
        dict.fromkeys(call.name for step in trajectory.steps if not step.is_finish for call in step.action.calls)
    )


def gain(grades: Sequence[int]) -> float:
    """Discounted cumulative gain."""
    return sum(grade / log2(place + 1) for place, grade in enumerate(grades, start=1))


def written_gains(gains: Sequence[int], best: Sequence[int]) -> str:
    """`gains 2 0 1 of 2 1 1`: of the tools in the order of their calls, and of those that help, best first."""
    return f"gains {' '.join(map(str, gains)) or 'none'} of {' '.join(map(str, best))}"


_GAINS = re.compile(r"\bgains (none|\d+(?: \d+)*) of (\d+(?: \d+)*)")


def read_gains(evidence: str) -> tuple[list[int], list[int]]:
    """What `written_gains` wrote, wherever it stands in a text."""
    if not (found := _GAINS.search(evidence)):
        return [], []
    made = [] if found[1] == "none" else list(map(int, found[1].split()))
    return made, list(map(int, found[2].split()))


OF_TOOLS: Mapping[str, Mapping[str, Any]] = {
    f"{name}_at_{k}": {"use": f"{__name__}:{cls}", "k": k}
    for name, cls in (("recall", "RecallAt"), ("complete", "CompleteAt"), ("ndcg", "NdcgAt"))
    for k in (3, 5)
}
"""As `metrics` of params.yaml has them."""

"""The outcome alone: the verdict, less the costs. What step rewards are compared with.

r_t = −cost          r_T = solved − cost − budget
"""

from __future__ import annotations

from collections.abc import Sequence

from steptool.core.types import ScoredTrajectory
from steptool.rewards.costs import Costs, discounted, less_costs, verdict_of


class Outcome:
    name = "outcome"
    needs_verdict = True

    class Config(Costs): ...

    def __init__(self, config: Costs) -> None:
        self.config = config

    @property
    def gamma(self) -> float:
        return self.config.gamma

    def rewards(self, scored: ScoredTrajectory) -> Sequence[float]:
        return less_costs(scored, self.config, verdict_of(scored))

    def expected_return(self, scored: ScoredTrajectory) -> float:
        """γ^T (solved − budget) − cost Σ γ^t."""
        return discounted(scored, self.config, verdict_of(scored))

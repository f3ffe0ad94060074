"""The rewards of the paper (arXiv 2410.07745), which has no costs.

With s_t, c_t the success and contribution of step t, and T the last step:

    r_t = α (s_t + c_t) − cost          r_T = solved − cost − budget
"""

from __future__ import annotations

from collections.abc import Sequence

from steptool.core.types import Judgement, ScoredTrajectory
from steptool.rewards.costs import Weights, discounted, less_costs, verdict_of


class Paper:
    name = "paper"

    class Config(Weights): ...

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def gamma(self) -> float:
        return self.config.gamma

    def rewards(self, scored: ScoredTrajectory) -> Sequence[float]:
        paid = [self._paid(judgement) for judgement in scored.judgements]
        return [
            reward + more
            for reward, more in zip(less_costs(scored, self.config, verdict_of(scored)), paid, strict=True)
        ]

    def expected_return(self, scored: ScoredTrajectory) -> float:
        """γ^T (solved − budget) − cost Σ γ^t + α Σ γ^t (s_t + c_t)."""
        paid = sum(self.gamma**t * self._paid(judgement) for t, judgement in enumerate(scored.judgements))
        return discounted(scored, self.config, verdict_of(scored)) + paid

    def _paid(self, judgement: Judgement) -> float:
        """What the scores of one step earn. The last step has no such scores."""
        return self.config.alpha * ((judgement.success or 0.0) + (judgement.contribution or 0.0))

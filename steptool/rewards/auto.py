"""Rewards by what is known of a task: its outcomes where there are any, else its calls alone.

known of the attempts at a task          form
a verdict on each                        `potential`: the verdict, and the calls as differences of a potential
none, or on some alone (a judge may
abstain)                                 `Calls`: the paper's rewards of calls, no verdict

All attempts at one task have one form, because they are compared with each other. One that a fault of the engine or the
world ended is not asked for a verdict.

Why `potential` and not the verdict alone: with exact verdicts, and with verdicts of which 10 to 30 % are wrong, the
advantages of `potential` agreed better with the true outcomes than those of the verdict alone (docs/rewards.md), and
the return of an attempt is still its verdict less its costs. Where every task has a check, `auto` is `potential`.
"""

from __future__ import annotations

from collections.abc import Sequence

from steptool.core.fields import Weight
from steptool.core.types import ScoredTrajectory
from steptool.rewards.base import RewardForm
from steptool.rewards.costs import Weights, discounted, less_costs
from steptool.rewards.potential import Potential
from steptool.rewards.repeats import first_shares


class Auto:
    name = "auto"
    needs_verdict = False

    class Config(Weights):
        calls_alpha: Weight = 0.5
        """Weight of success and of contribution where there is no verdict, as published (arXiv 2410.07745)."""

    def __init__(self, config: Config) -> None:
        self.config = config
        shared = {"step_cost": config.step_cost, "budget_cost": config.budget_cost, "gamma": config.gamma}
        self._by_outcome = Potential(Potential.Config(alpha=config.alpha, **shared))
        self._by_calls = Calls(Weights(alpha=config.calls_alpha, **shared))

    @property
    def gamma(self) -> float:
        return self.config.gamma

    @property
    def shapes(self) -> bool:
        return self._by_outcome.shapes

    def choose(self, attempts: Sequence[ScoredTrajectory]) -> RewardForm:
        judged = [attempt.solved is not None for attempt in attempts if not attempt.trajectory.stop_reason.broken]
        return self._by_outcome if judged and all(judged) else self._by_calls

    def rewards(self, scored: ScoredTrajectory) -> Sequence[float]:
        """Of an attempt that is compared with no other."""
        return self.choose([scored]).rewards(scored)


class Calls:
    """The rewards that the paper gives to calls, without a verdict.

        r_t = α (s_t + c_t) − cost          r_T = −cost − budget

    s_t is 0 where the call, with the same arguments, succeeded before: to repeat a good call would earn more than to
    answer. c_t is 0 there already. Calls that differ still earn s_t each, whether the task needs them or not.
    """

    name = "calls"
    needs_verdict = False

    def __init__(self, config: Weights) -> None:
        self.config = config

    @property
    def gamma(self) -> float:
        return self.config.gamma

    def rewards(self, scored: ScoredTrajectory) -> Sequence[float]:
        plain = less_costs(scored, self.config, verdict=0.0)
        return [reward + more for reward, more in zip(plain, self._paid(scored), strict=True)]

    def expected_return(self, scored: ScoredTrajectory) -> float:
        """−γ^T budget − cost Σ γ^t + α Σ γ^t (s_t + c_t)."""
        paid = sum(self.gamma**t * more for t, more in enumerate(self._paid(scored)))
        return discounted(scored, self.config, verdict=0.0) + paid

    def _paid(self, scored: ScoredTrajectory) -> list[float]:
        """What the scores of each step earn."""
        return [
            self.config.alpha * (share * (judgement.success or 0.0) + (judgement.contribution or 0.0))
            for share, judgement in zip(first_shares(scored), scored.judgements, strict=True)
        ]

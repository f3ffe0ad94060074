"""Rewards by what is known of a task: its outcomes where there are any, else its calls alone.

known of the attempts at a task                         form
a verdict on each                                       `potential`: the verdict, and the calls as differences of a
                                                        potential
none, or on some alone (a judge may abstain)            `grounded`, without the verdict: the calls that build on what
                                                        others showed, and an answer that stands on it

All attempts at one task have one form, because they are compared with each other. One that a fault of the engine or the
world ended is not asked for a verdict.

Why `potential` and not the verdict alone: with exact verdicts, and with verdicts of which 10 to 30 % are wrong, the
advantages of `potential` agreed better with the true outcomes than those of the verdict alone (docs/rewards.md), and
the return of an attempt is still its verdict less its costs. Where every task has a check, `auto` is `potential`. Why
`grounded` and not what the paper pays calls: more calls earn nothing there (`steptool audit-rewards`).
"""

from __future__ import annotations

from collections.abc import Sequence

from steptool.core.types import ScoredTrajectory
from steptool.rewards.base import RewardForm, all_judged
from steptool.rewards.costs import Weights
from steptool.rewards.grounded import Grounded
from steptool.rewards.potential import Potential


class Auto:
    name = "auto"
    needs_verdict = False

    class Config(Weights):
        """Of `potential`; `grounded` has its defaults. Set `use: grounded` to change them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._by_outcome = Potential(Potential.Config(**config.model_dump()))
        self._by_calls = Grounded(Grounded.Config(gamma=config.gamma)).unjudged

    @property
    def gamma(self) -> float:
        return self.config.gamma

    @property
    def shapes(self) -> bool:
        return self._by_outcome.shapes

    def choose(self, attempts: Sequence[ScoredTrajectory]) -> RewardForm:
        return self._by_outcome if all_judged(attempts) else self._by_calls

    def rewards(self, scored: ScoredTrajectory) -> Sequence[float]:
        """Of an attempt that is compared with no other."""
        return self.choose([scored]).rewards(scored)

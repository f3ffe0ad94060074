"""Rewards by evidence: every score of a step is paid what it was worth in these data.

With w the weights that the outcomes give the scores s of a step (`steptool.rewards.evidence`), each at least 0:

    r_t = strength (Σ w s_t − w_length) − cost          and at the last step + solved − budget

A weight is in solved tasks: where of ten attempts with one more useful call three more are solved, w is 0.3. It is 0
where its interval holds 0, so a score that says nothing of the outcome, or the opposite, is not paid. A call that
succeeded before earns nothing, and the scores of an attempt together earn at most 1, as much as a solved task.

A task of which some attempts have no verdict is rewarded without: what the weights, measured on the tasks with
verdicts, foretell of an attempt stands in for it.

Limits. The weights say what went with solved attempts of this policy, not what made them solved: another policy, such
as one that was trained on them, needs them measured anew, which each round does. They are no potential, so they change
which policy is best, by at most 1. Verdicts that are wrong at random make all weights smaller (by 1 − 2q where a share
q is wrong), though the scores deserve more next to such verdicts: raise `strength` then, by what `benchmarks.credit`
says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steptool.core.errors import DataError
from steptool.core.fields import Weight
from steptool.core.types import ScoredTrajectory
from steptool.rewards.base import RewardForm, all_judged
from steptool.rewards.costs import Costs, discounted, less_costs, verdict_of
from steptool.rewards.evidence import ENOUGH, LENGTH, moments, paid_scores, tally, weights

MOST = 1.0
"""What the scores of an attempt earn together, before its length costs."""


class Calibrated:
    name = "calibrated"
    needs_verdict = False

    class Config(Costs):
        strength: Weight = 0.5
        """What is paid of a weight: at 1 an outcome that the scores foretell counts as much as a verdict. A half did no
        harm next to exact verdicts (docs/rewards.md); next to wrong ones, 1 and more did better."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def gamma(self) -> float:
        return self.config.gamma

    def fitted(self, scored: Sequence[ScoredTrajectory]) -> ByEvidence:
        """The form with the weights that these attempts give.

        Raises DataError where attempts have neither a verdict nor a score that is known to go with one: nothing would
        be left of their rewards but costs.
        """
        tallies = [each for each in map(tally, scored) if each is not None]
        found = moments(tallies)
        weighed = weights(found)
        unjudged = sum(each.solved is None and not each.trajectory.stop_reason.broken for each in scored)
        if unjudged and not weighed.keys() - {LENGTH}:
            telling = int((found.yy > 0).sum())
            raise DataError(
                f"{unjudged} of {len(scored)} attempts have no verdict, and no score of a step goes with the verdicts "
                f"of the others: {telling} tasks have attempts with different verdicts, and {ENOUGH} are the least",
                where="reward: calibrated",
                fix="give more tasks a check, or set reward.use: auto, whose weights are given",
            )
        return ByEvidence(self.config, weighed)

    def rewards(self, scored: ScoredTrajectory) -> Sequence[float]:
        """Of an attempt of which no others are known: by its verdict alone. Raises DataError where it has none."""
        return self.fitted([scored]).choose([scored]).rewards(scored)


class ByEvidence:
    """The fitted form: what rewards a task follows from whether all attempts at it have a verdict."""

    needs_verdict = False

    def __init__(self, config: Calibrated.Config, weighed: Mapping[str, float]) -> None:
        self.config = config
        self.weights = dict(weighed)

    @property
    def gamma(self) -> float:
        return self.config.gamma

    def choose(self, attempts: Sequence[ScoredTrajectory]) -> RewardForm:
        return Weighed(self.config, self.weights, needs_verdict=all_judged(attempts))

    def rewards(self, scored: ScoredTrajectory) -> Sequence[float]:
        """Of an attempt that is compared with no other."""
        return self.choose([scored]).rewards(scored)


class Weighed:
    """Scores times given weights, with the verdict or without."""

    def __init__(self, config: Calibrated.Config, weighed: Mapping[str, float], *, needs_verdict: bool) -> None:
        self.config = config
        self.weights = weighed
        self.needs_verdict = needs_verdict

    @property
    def gamma(self) -> float:
        return self.config.gamma

    def rewards(self, scored: ScoredTrajectory) -> Sequence[float]:
        plain = less_costs(scored, self.config, self._verdict(scored))
        return [reward + more for reward, more in zip(plain, self._paid(scored), strict=True)]

    def expected_return(self, scored: ScoredTrajectory) -> float:
        """γ^T (solved − budget) − (cost + strength w_length) Σ γ^t + strength Σ γ^t Σ w s_t."""
        paid = sum(self.gamma**t * more for t, more in enumerate(self._paid(scored)))
        return discounted(scored, self.config, self._verdict(scored)) + paid

    def _verdict(self, scored: ScoredTrajectory) -> float:
        return verdict_of(scored) if self.needs_verdict else 0.0

    def _paid(self, scored: ScoredTrajectory) -> list[float]:
        """What the scores of each step earn, less what a step costs by the evidence."""
        length, left, paid = self.weights.get(LENGTH, 0.0), MOST, []
        for scores in paid_scores(scored):
            earned = self.config.strength * sum(self.weights.get(name, 0.0) * value for name, value in scores.items())
            earned = min(earned, left)
            left -= earned
            paid.append(earned - self.config.strength * length)
        return paid

"""Rewards that teach without a verdict, and that calling more does not earn.

With t_1 < t_2 < … < t_D the steps that build (score `builds`: each is the first to use what a call was first to show),
g whether the answer stands on what calls showed (score `grounded`), T the last step, and v the verdict:

    r_t = w (1 − a) (1 − ρ) ρ^(k−1) [t = t_k] − cost          r_T = the same + w a g + (1 − w) v

w is 1 where there is no verdict, else α / (1 + α): the grounding counts α of what the verdict does.

What follows from it, whatever an attempt does:

bounded    the pay of an attempt, without the price of its steps, is (1 − w) v + w (a g + (1 − a) (1 − ρ^D)) <= 1
repeats    are paid nothing: they show nothing that was not shown, so nobody can use them
unused     a call is paid where its reply is used, by the step that uses it, and once
delay      only the price of steps is negative, so no return is below −cost / (1 − decay). A step that is paid nothing,
           put in anywhere, turns the return G from there on into −cost + decay G <= G, at every decay in [0, 1). To put
           an answer off, or the giving up, never earns. So there is no price on a spent budget: it would be worth
           putting off. Such an attempt has no answer, and is paid for none
order      of calls that do not use each other changes nothing but when they are paid

A step is paid by what came before it and by itself, never in hindsight, so where attempts part their returns differ by
what they did from there on.

Limits. A wrong answer that calls showed is paid as the right one is, where there is no verdict. An early answer saves
the price of steps; a call past what the task needs is paid (1 − a) (1 − ρ) ρ^D where something uses it. The price is a
third of that pay: a higher one makes early answers earn, a lower one detours. An answer that was computed from several
replies is not grounded. The more the answer is paid, the more an early one earns at lambda below 1, and in long tasks.
Of an annotator that gives no `builds`, a step that contributed at all is taken to build, which is known in hindsight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from steptool.core.fields import Fraction, Weight
from steptool.core.types import Judgement, ScoredTrajectory, StopReason
from steptool.rewards.base import RewardForm, all_judged
from steptool.rewards.costs import Priced, discounted, less_costs, verdict_of


class Grounded:
    name = "grounded"
    needs_verdict = False

    class Config(Priced):
        alpha: Weight = 2.0
        """Weight of the grounding where there is a verdict, which counts 1."""
        answer: Fraction = 0.05
        """a: share that a grounded answer is paid; the steps that build share the rest."""
        next_call: Fraction = 0.95
        """rho: what a step that builds is paid, of what the one before it was. Nearer to 1 for tasks of many calls."""
        step_cost: Weight = 0.015

    def __init__(self, config: Config) -> None:
        self.config = config
        self._judged = Paid(config, config.alpha / (1 + config.alpha))
        self.unjudged = Paid(config, 1.0)
        """The form of tasks without a verdict."""

    @property
    def gamma(self) -> float:
        return self.config.gamma

    def choose(self, attempts: Sequence[ScoredTrajectory]) -> RewardForm:
        """With the verdict where each attempt has one that no fault ended."""
        return self._judged if all_judged(attempts) else self.unjudged

    def rewards(self, scored: ScoredTrajectory) -> Sequence[float]:
        """Of an attempt that is compared with no other."""
        return self.choose([scored]).rewards(scored)


class Paid:
    """The form of all attempts at one task. `weight`: w of the formulas."""

    name = "grounded"

    def __init__(self, config: Grounded.Config, weight: float) -> None:
        self.config, self.weight = config, weight
        self.needs_verdict = weight < 1

    @property
    def gamma(self) -> float:
        return self.config.gamma

    def rewards(self, scored: ScoredTrajectory) -> list[float]:
        """One number a step."""
        rewards = less_costs(scored, self.config, self._of_the_answer(scored))
        for place, step in enumerate(_chain(scored)):
            rewards[step] += self._of_call(place)
        return rewards

    def expected_return(self, scored: ScoredTrajectory) -> float:
        """γ^T ((1 − w) v + w a g) + w (1 − a) (1 − ρ) Σ_k ρ^(k−1) γ^(t_k) − cost Σ γ^t."""
        calls = sum(self._of_call(place) * self.gamma**step for place, step in enumerate(_chain(scored)))
        return discounted(scored, self.config, self._of_the_answer(scored)) + calls

    def _of_the_answer(self, scored: ScoredTrajectory) -> float:
        if not scored.judgements:
            return 0.0
        verdict = verdict_of(scored) * (1 - self.weight)
        return verdict + self.weight * self.config.answer * _grounded(scored)

    def _of_call(self, place: int) -> float:
        """`place`: of the call in the chain, from 0."""
        share = (1 - self.config.next_call) * self.config.next_call**place
        return self.weight * (1 - self.config.answer) * share


def _grounded(scored: ScoredTrajectory) -> float:
    """How far the answer stands on what calls showed; of an annotator that does not say, whether any contributed."""
    if scored.trajectory.stop_reason is not StopReason.finished:
        return 0.0
    said = scored.judgements[-1].scores.get("grounded")
    return float(any(map(_builds, scored.judgements[:-1]))) if said is None else said


def _chain(scored: ScoredTrajectory) -> Iterator[int]:
    """The steps that build, in order."""
    yield from (step for step, judgement in enumerate(scored.judgements) if _builds(judgement))


def _builds(judgement: Judgement) -> bool:
    """Of an annotator that does not say: whether it contributed."""
    said = judgement.scores.get("builds")
    return bool(judgement.contribution if said is None else said)

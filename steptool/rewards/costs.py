"""Shared by the reward forms of this package: the verdict at the last step, less the costs of steps and of a spent
budget.

r_t = −cost        r_T = verdict − cost − budget
"""

from __future__ import annotations

from steptool.core.fields import Fraction, Settings, Weight
from steptool.core.types import ScoredTrajectory, StopReason
from steptool.rewards.base import RewardForm

OUT_OF_BUDGET = (StopReason.call_budget, StopReason.token_budget)


class Priced(Settings):
    """Settings of a reward form with a price on steps; a solved task counts 1."""

    step_cost: Weight = 0.02
    gamma: Fraction = 0.99
    """Discount between steps."""


class Costs(Priced):
    """Settings of a form with a price on a spent budget, too."""

    budget_cost: Weight = 0.2
    """What it costs to run out of calls or tokens."""


class Weights(Costs):
    """Settings of a form that pays for success and contribution by a weight of its own."""

    alpha: Weight = 0.2
    """Weight of success and of contribution; a solved task counts 1."""


def verdict_of(scored: ScoredTrajectory) -> float:
    """0 where there is none."""
    return scored.solved or 0.0


def less_costs(scored: ScoredTrajectory, costs: Priced, verdict: float) -> list[float]:
    """One number a step."""
    rewards = [-costs.step_cost] * len(scored.judgements)
    if rewards:
        rewards[-1] += _at_the_end(scored, costs, verdict)
    return rewards


def final_rewards(form: RewardForm, scored: ScoredTrajectory, *, costs: bool = True) -> list[float]:
    """r_t = 0 of every step but the last, which is paid the verdict less all costs that `form` has, if it has any;
    without `costs` the verdict alone."""
    verdict = verdict_of(scored)
    earned = sum(less_costs(scored, costs_of(form), verdict)) if costs else verdict
    return [*[0.0] * (len(scored.judgements) - 1), earned] if scored.judgements else []


def costs_of(form: RewardForm) -> Priced:
    """What `form` takes off, at its discount: nothing, where its settings name no costs."""
    own = getattr(form, "config", None)
    return own if isinstance(own, Priced) else Priced(step_cost=0.0, gamma=form.gamma)


def discounted(scored: ScoredTrajectory, costs: Priced, verdict: float) -> float:
    """Σ γ^t of `less_costs` in closed form: γ^T (verdict − budget) − cost Σ γ^t."""
    n, gamma = len(scored.judgements), costs.gamma
    if not n:
        return 0.0
    total = gamma ** (n - 1) * _at_the_end(scored, costs, verdict)
    return total - costs.step_cost * (n if gamma == 1 else (1 - gamma**n) / (1 - gamma))


def _at_the_end(scored: ScoredTrajectory, costs: Priced, verdict: float) -> float:
    spent = scored.trajectory.stop_reason in OUT_OF_BUDGET
    return verdict - (costs.budget_cost if spent and isinstance(costs, Costs) else 0.0)

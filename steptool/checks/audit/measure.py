"""What the attacks earn, next to the attempt that they must not beat. Pure.

return      Σ γ^t r_t
lambda      Σ (γλ)^t r_t: what training compares attempts by
advantage   the attack's advantage in training, where the two are all the attempts at their task: the difference of
            their lambda-returns from the action on where they part
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steptool.checks.audit.attacks import HONEST
from steptool.checks.audit.play import Made
from steptool.core.types import ScoredTrajectory
from steptool.rewards.base import RewardForm, rewards_of
from steptool.training.siblings import returns_to_go

MEASURES = ("return", "lambda", "advantage")
TINY = 1e-9


@dataclass(frozen=True)
class Row:
    """One attack on all tasks that give it a hold."""

    name: str
    against: str
    tasks: int
    gains: dict[str, float]
    """Measure → share of these tasks on which the attack earns more."""
    earned: float
    """Mean lambda-return of the attack, less that of what it is compared with."""

    @property
    def most(self) -> float:
        return max(self.gains.values())


def rows(made: Sequence[Sequence[Made]], form: RewardForm, lambda_step: float) -> list[Row]:
    """One row an attack. `made` are the attempts of each task."""
    differences: dict[tuple[str, str], list[dict[str, float]]] = {}
    for attempts in made:
        given = rewards_of(form, [each.scored for each in attempts])
        found = {each.name: (each.scored, own) for each, own in zip(attempts, given, strict=True)}
        for each in attempts:
            if each.name != HONEST:
                gained = difference(*found[each.name], *found[each.against], form.gamma, lambda_step)
                differences.setdefault((each.name, each.against), []).append(gained)
    return [
        Row(
            name=name,
            against=against,
            tasks=len(gained),
            gains={key: sum(one[key] > TINY for one in gained) / len(gained) for key in MEASURES},
            earned=sum(one["lambda"] for one in gained) / len(gained),
        )
        for (name, against), gained in differences.items()
    ]


def difference(
    attack: ScoredTrajectory,
    own: Sequence[float],
    other: ScoredTrajectory,
    its: Sequence[float],
    gamma: float,
    lambda_step: float,
) -> dict[str, float]:
    """Measure → what `attack` earns, less what `other` does; `own` and `its` are their rewards."""
    decay, parting = gamma * lambda_step, _parting(attack, other)
    return {
        "return": _from(0, own, gamma) - _from(0, its, gamma),
        "lambda": _from(0, own, decay) - _from(0, its, decay),
        "advantage": _from(parting, own, decay) - _from(parting, its, decay),
    }


def _from(step: int, rewards: Sequence[float], decay: float) -> float:
    returns = returns_to_go(rewards, decay)
    return returns[step] if step < len(returns) else 0.0


def _parting(attack: ScoredTrajectory, other: ScoredTrajectory) -> int:
    """The first step in which they do not do the same; the number of steps where they do the same in all."""
    pairs = zip(attack.trajectory.steps, other.trajectory.steps, strict=False)
    same = [mine.action == its.action for mine, its in pairs]
    return same.index(False) if False in same else len(same)

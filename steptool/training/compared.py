"""How methods credit the attempts at a task by each other, told from their settings alone: no page needs a model.

    step_ppo    by the rewards of steps, where attempts part        `Comparison`
    ppo_final   the same, all of it paid at the last step           `FinalComparison`
    grpo        whole attempts by their verdicts                    `AttemptGroups`
    gigpo       whole attempts, and steps in the same state         `StateGroups`

Numbers are those before whitening, and without the penalty of a KL in the reward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from steptool.core.fields import Fraction, Settings, Weight
from steptool.core.types import ScoredTrajectory
from steptool.rewards.base import RewardForm
from steptool.rewards.costs import final_rewards
from steptool.training.episode import Episode
from steptool.training.groups import group_in_group, relative
from steptool.training.siblings import Comparison, advantages_of_attempts, groups_of


class FinalComparison(Comparison):
    lambda_step: Fraction = 1.0
    """Lambda of GAE. Below 1 with `branches` or `attempts`, a verdict counts for less the more steps lie before it."""


class AttemptGroups(Settings):
    scale: Literal["std", "none"] = "std"
    """What the difference to the group's mean is divided by: the group's standard deviation, or nothing."""
    costs: bool = False
    """Whether the costs of steps and of a spent budget, those of the reward form, are taken off the verdict. A task
    that no attempt solved then has advantages too, and scaled they are as large as any."""


class StateGroups(Settings):
    scale: Literal["std", "none"] = "std"
    """What a difference to a group's mean is divided by: the group's standard deviation, or nothing."""
    step_weight: Weight = 1.0
    """w: how much the comparison within a state counts beside that of whole attempts."""


Compared = Comparison | AttemptGroups | StateGroups
KINDS: Mapping[str, type[Compared]] = {"ppo_final": FinalComparison, "grpo": AttemptGroups, "gigpo": StateGroups}
"""By method; any other that compares has the settings of `step_ppo`."""


def compared_by(learner: Mapping[str, Any]) -> Compared:
    """From what `steptool.config.arms.comparison_of` gives. Raises pydantic's ValidationError."""
    settings = {key: value for key, value in learner.items() if key != "method"}
    return KINDS.get(str(learner.get("method")), Comparison).model_validate(settings)


def compares(compared: Compared | None) -> bool:
    """Whether it holds attempts against each other, and asks no critic."""
    return compared is not None and not (isinstance(compared, Comparison) and compared.baseline == "critic")


def paid(
    compared: Compared, form: RewardForm, scored: ScoredTrajectory, rewards: Sequence[float]
) -> Sequence[float] | None:
    """What the method takes an attempt's steps to earn, where `form` gives them `rewards`; None where it leaves the
    attempt out, since it has no verdict."""
    if not isinstance(compared, FinalComparison | AttemptGroups):
        return rewards
    if scored.solved is None:
        return None
    return final_rewards(form, scored, costs=isinstance(compared, FinalComparison) or compared.costs)


def advantages_by(compared: Compared, attempts: Sequence[Episode], gamma: float) -> list[list[float]]:
    """Of the attempts at one task, one list of numbers an attempt: one a sampled token.

    Raises ValueError where the comparison is with a critic.
    """
    if isinstance(compared, Comparison):
        return advantages_of_attempts(attempts, [item.rewards for item in attempts], compared, gamma)
    if isinstance(compared, AttemptGroups):
        by_attempt = relative([sum(item.rewards) for item in attempts], scaled=compared.scale == "std")
        return [[value] * len(item.step_ids) for item, value in zip(attempts, by_attempt, strict=True)]
    by_step = group_in_group(
        [item.rewards for item in attempts],
        [item.states for item in attempts],
        gamma=gamma,
        step_weight=compared.step_weight,
        scaled=compared.scale == "std",
    )
    return [[own[step] for step in item.step_ids] for item, own in zip(attempts, by_step, strict=True)]


def described(compared: Compared, gamma: float) -> str:
    """For a person: what is compared with what."""
    if isinstance(compared, AttemptGroups):
        return "whole attempts by their verdicts" + (" less costs" if compared.costs else "")
    if isinstance(compared, StateGroups):
        return f"whole attempts, and steps in the same state (step_weight {compared.step_weight:g})"
    merged = " by state" if compared.merge == "state" else ""
    final = ", paid at the last step alone" if isinstance(compared, FinalComparison) else ""
    return f"baseline {compared.baseline}{merged}, gamma · lambda {gamma * compared.lambda_step:.3g}{final}"


def with_contrast(compared: Compared, episodes: Sequence[Episode], gamma: float) -> list[list[Episode]]:
    """By task, the attempts that came to an end and have an advantage, or one beside them has."""
    groups, _ = groups_of(episodes)
    return [
        group
        for group in groups
        if any(abs(value) > 1e-9 for own in advantages_by(compared, group, gamma) for value in own)
    ]


def unless_all_alike(
    compared: Compared, episodes: Sequence[Episode], gamma: float
) -> tuple[list[Episode], dict[str, int]]:
    """The attempts that came to an end beside others at their task, and how many were left out, for which reason.

    Attempts at a task that earned alike are kept, for a KL to hold, unless all tasks are like that.
    """
    groups, skipped = groups_of(episodes)
    alike = [group for group in groups if not any(map(any, advantages_by(compared, group, gamma)))]
    kept = [item for group in groups for item in group] if len(alike) < len(groups) else []
    return kept, {**skipped, "alike": sum(map(len, alike))}

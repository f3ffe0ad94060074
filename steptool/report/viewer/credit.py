"""What the steps of the attempts at one task earn, and which of their tokens the training pushes, as the settings say.

rewards       the project's reward form, on all attempts at the task in a round
returns       G_k = r_k + gamma G_{k+1}
advantages    of the arm that learns from the round by comparing attempts (`steptool.training.siblings`): one number a
              sampled token, before whitening, and without the penalty of a KL in the reward
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steptool.config.arms import learner_of
from steptool.config.places import PARAMS
from steptool.config.settings import Params, load_params
from steptool.core.errors import DataError, StepToolError
from steptool.core.types import ScoredTrajectory
from steptool.rewards.base import RewardForm, forms_of
from steptool.training.episode import Episode, episode
from steptool.training.siblings import Comparison, advantages_of_attempts, returns_to_go, with_different_siblings

LEARNED_FROM = ("validated", "scored")
"""Sources whose parts are rounds with scores, which arms learn from."""
PLACES = 6
"""Decimal places that numbers are shown with at most."""


@dataclass(frozen=True)
class Earned:
    """Of one attempt."""

    rewards: tuple[float, ...]
    returns: tuple[float, ...]
    advantages: tuple[tuple[float, ...], ...] | None
    """By step, one a sampled token; None where nothing compares this attempt with others."""


@dataclass(frozen=True)
class Credited:
    earned: tuple[Earned, ...] | None
    """One an attempt; None where there are no rewards."""
    rewards_by: str
    """Which form gave the rewards, or why there are none."""
    advantages_by: str
    """Which arm's settings gave the advantages, or why there are none."""


class Credit:
    """The settings of a project, read once. Without any that can be read there are no rewards, and it says so."""

    def __init__(self, params: Params | None, problem: str = "") -> None:
        self._params, self._problem = params, problem
        self._form: RewardForm | None = None if params is None else params.reward.build()

    @classmethod
    def of_project(cls) -> Credit:
        """By params.yaml of the current folder."""
        if not PARAMS.exists():
            return cls(None, f"no {PARAMS} says what a step earns")
        try:
            return cls(load_params(PARAMS))
        except StepToolError as error:
            return cls(None, error.found.splitlines()[0])

    @property
    def params(self) -> Params | None:
        return self._params

    def of(self, attempts: Sequence[ScoredTrajectory], source: str, part: str) -> Credited:
        """Of all attempts at one task in a part of a source."""
        if self._form is None or self._params is None:
            return Credited(None, f"not shown: {self._problem}", "")
        forms = forms_of(self._form, attempts)
        rewards = [tuple(form.rewards(each)) for form, each in zip(forms, attempts, strict=True)]
        gamma = self._form.gamma
        advantages, said = self._advantages(attempts, rewards, source, part)
        earned = tuple(
            Earned(
                tuple(round(value, PLACES) for value in own),
                tuple(round(value, PLACES) for value in returns_to_go(own, gamma)),
                None if mine is None else _by_step(mine, each),
            )
            for own, mine, each in zip(rewards, advantages, attempts, strict=True)
        )
        return Credited(earned, f"{self._params.reward.name}, gamma {gamma:g}", said)

    def _advantages(
        self, attempts: Sequence[ScoredTrajectory], rewards: Sequence[Sequence[float]], source: str, part: str
    ) -> tuple[list[list[float] | None], str]:
        """One list of numbers an attempt, None where it is compared with no other; and by what, or why there are none."""
        nothing: list[list[float] | None] = [None] * len(attempts)
        assert self._params is not None and self._form is not None
        learner = learner_of(self._params, part) if source in LEARNED_FROM else None
        if learner is None:
            return nothing, "" if source not in LEARNED_FROM else "no arm that compares attempts learns from this round"
        arm, settings = learner
        comparison = Comparison.model_validate(settings)
        if comparison.baseline == "critic":
            return nothing, f"not shown: {arm} asks a critic, which is not kept after the training"
        decay = self._form.gamma * comparison.lambda_step
        try:
            episodes = [episode(each, own) for each, own in zip(attempts, rewards, strict=True)]
        except DataError as error:
            return nothing, f"none: {error.found}"
        kept, _ = with_different_siblings([each for each in episodes if each], comparison.baseline, decay)
        found = (
            advantages_of_attempts(kept, [each.rewards for each in kept], comparison.baseline, decay) if kept else []
        )
        of_kept = {each.trajectory_id: own for each, own in zip(kept, found, strict=True)}
        said = f"{arm}: {comparison.baseline}, gamma · lambda {decay:.3g}, before whitening"
        if not kept:
            said = f"{arm} leaves these attempts out: {_why_none(episodes)}"
        return [of_kept.get(each.trajectory_id) if each else None for each in episodes], said


def _why_none(episodes: Sequence[Episode | None]) -> str:
    whole = [each for each in episodes if each and not each.truncated]
    if not whole:
        return "none of them came to an end"
    return "only one came to an end, so there is none to compare it with" if len(whole) < 2 else "all earned the same"


def _by_step(advantages: Sequence[float], attempt: ScoredTrajectory) -> tuple[tuple[float, ...], ...]:
    found, start = [], 0
    for step in attempt.trajectory.steps:
        stop = start + len(step.action_ids)
        found.append(tuple(round(value, PLACES) for value in advantages[start:stop]))
        start = stop
    return tuple(found)

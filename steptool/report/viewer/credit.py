"""What the steps of the attempts at one task earn, and which of their tokens the training pushes, as the settings say.

rewards       the project's reward form, on all attempts at the task in a round
returns       G_k = r_k + gamma G_{k+1}
advantages    of the arm that learns from the round by comparing attempts (`steptool.training.siblings`): one number a
              sampled token, before whitening, and without the penalty of a KL in the reward
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from steptool.config.arms import learner_of
from steptool.config.places import PARAMS, SCORED, VALIDATED
from steptool.config.settings import Params, load_params
from steptool.core.errors import DataError, StepToolError, describe
from steptool.core.storage import read_jsonl
from steptool.core.types import ScoredTrajectory
from steptool.rewards.base import Fits, RewardForm, rewards_of
from steptool.training.compared import advantages_by, compared_by, compares, described, paid, with_contrast
from steptool.training.episode import Episode, episode
from steptool.training.siblings import returns_to_go

LEARNED_FROM = {"validated": VALIDATED, "scored": SCORED}
"""Sources whose parts are rounds with scores, which arms learn from, and where these lie."""
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
    notes: tuple[str, ...]
    """Sentences: which form gave the rewards, which arm's settings the advantages, or why there are none."""


def no_rewards(why: str) -> Credited:
    return Credited(None, (f"No rewards: {why}.",))


class Credit:
    """The settings of a project, read once. Where they cannot be read there are no rewards, and it says so."""

    def __init__(self, params: Params | None, problem: str = "") -> None:
        self.params, self._problem = params, problem
        self._fitted: dict[tuple[str, str], RewardForm] = {}

    @classmethod
    def of_project(cls) -> Credit:
        """By params.yaml of the current folder."""
        if not PARAMS.exists():
            return cls(None, f"no {PARAMS} says what a step earns")
        try:
            return cls(load_params(PARAMS))
        except StepToolError as error:
            return cls(None, error.found.splitlines()[0])

    def of(self, attempts: Sequence[ScoredTrajectory], source: str, part: str) -> Credited:
        """Of all attempts at one task in a part of a source."""
        if self.params is None:
            return no_rewards(self._problem)
        try:
            form = self._form(self.params, source, part)
            rewards = [tuple(own) for own in rewards_of(form, attempts)]
            returns = [returns_to_go(own, form.gamma) for own in rewards]
        except Exception as fault:  # noqa: BLE001 - a form may be the project's own
            return no_rewards(f"{self.params.reward.name} fails with {describe(fault)}")
        if not all(math.isfinite(value) for own in (*rewards, *returns) for value in own):
            return no_rewards(f"{self.params.reward.name} gives some that are not finite")
        try:
            advantages, said = _advantages(self.params, form, attempts, rewards, source, part)
        except DataError as error:
            advantages, said = [None] * len(attempts), f"No advantages: {error.found}."
        earned = tuple(
            Earned(_rounded(own), _rounded(to_go), None if mine is None else _by_step(mine, each))
            for own, to_go, mine, each in zip(rewards, returns, advantages, attempts, strict=True)
        )
        notes = (f"Rewards by {self.params.reward.name}, gamma {form.gamma:g}.", said)
        return Credited(earned, tuple(note for note in notes if note))

    def _form(self, params: Params, source: str, part: str) -> RewardForm:
        """One that must see data first sees all attempts of the round, once."""
        form: RewardForm = params.reward.build()
        if not isinstance(form, Fits):
            return form
        if source not in LEARNED_FROM:
            raise DataError("it is fitted to the attempts of a round, and these are of none")
        if (source, part) not in self._fitted:
            path = LEARNED_FROM[source] / part / "scored.jsonl.gz"
            self._fitted[source, part] = form.fitted(read_jsonl(path, ScoredTrajectory))
        return self._fitted[source, part]


def _advantages(
    params: Params,
    form: RewardForm,
    attempts: Sequence[ScoredTrajectory],
    rewards: Sequence[Sequence[float]],
    source: str,
    part: str,
) -> tuple[list[list[float] | None], str]:
    """One list of numbers an attempt, None where it is compared with no other; and by what, or why there are none.

    Raises DataError for attempts that were not sampled.
    """
    nothing: list[list[float] | None] = [None] * len(attempts)
    if source not in LEARNED_FROM:
        return nothing, ""
    learner = learner_of(params, part)
    if learner is None:
        return nothing, "No advantages: no arm that compares attempts learns from this round."
    arm, settings = learner
    try:
        compared = compared_by(settings)
    except ValidationError:
        return nothing, f"No advantages: {arm} has settings that are not valid; `steptool params` says which."
    if not compares(compared):
        return nothing, f"No advantages: {arm} asks a critic, which is not kept after the training."
    learned = [paid(compared, form, each, own) for each, own in zip(attempts, rewards, strict=True)]
    if all(own is None for own in learned):
        return nothing, f"No advantages: {arm} leaves these attempts out, as none has a verdict."
    episodes = [None if own is None else episode(each, own) for each, own in zip(attempts, learned, strict=True)]
    kept = with_contrast(compared, [each for each in episodes if each], form.gamma)
    if not kept:
        return nothing, f"No advantages: {arm} leaves these attempts out, {_why_none(episodes)}."
    of_kept = {
        each.trajectory_id: own
        for group in kept
        for each, own in zip(group, advantages_by(compared, group, form.gamma), strict=True)
    }
    said = f"Advantages as {arm} learns: {described(compared, form.gamma)}, before whitening."
    return [of_kept.get(each.trajectory_id) if each else None for each in episodes], said


def _why_none(episodes: Sequence[Episode | None]) -> str:
    whole = [each for each in episodes if each and not each.truncated]
    if not whole:
        return "as none came to an end"
    return "as only one came to an end" if len(whole) < 2 else "as all earned the same"


def _by_step(advantages: Sequence[float], attempt: ScoredTrajectory) -> tuple[tuple[float, ...], ...]:
    found, start = [], 0
    for step in attempt.trajectory.steps:
        stop = start + len(step.action_ids)
        found.append(_rounded(advantages[start:stop]))
        start = stop
    return tuple(found)


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(value, PLACES) for value in values)

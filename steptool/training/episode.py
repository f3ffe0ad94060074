"""A scored trajectory as one token stream with a reward a step: what methods select, compare and pack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from steptool.core.errors import DataError
from steptool.core.types import ScoredTrajectory, Trajectory
from steptool.trajectories.states import states_of


@dataclass(frozen=True)
class Episode:
    """One trajectory as a token stream: `ids` with M sampled tokens in it.

    `predict[j]` is the position in `ids` whose logits predict sampled token j, one before the token.
    """

    trajectory_id: str
    task_id: str
    ids: tuple[int, ...]
    prompt_length: int
    predict: tuple[int, ...]
    step_ids: tuple[int, ...]
    engine_logprobs: tuple[float, ...]
    rewards: tuple[float, ...]
    temperature: float
    truncated: bool
    """True if the state after the last token must be bootstrapped."""
    states: tuple[str, ...] = ()
    """One a step, by `states_of`; empty for what is only imitated."""

    @property
    def prompt(self) -> tuple[int, ...]:
        return self.ids[: self.prompt_length]

    @cached_property
    def targets(self) -> tuple[int, ...]:
        return tuple(self.ids[position + 1] for position in self.predict)

    @cached_property
    def histories(self) -> tuple[int, ...]:
        """[M] hash of what the policy saw before it sampled the token: equal where all tokens up to there are."""
        seen = tuple(accumulate(self.ids, lambda before, token: hash((before, token))))
        return tuple(seen[position] for position in self.predict)

    @property
    def merged_histories(self) -> tuple[int, ...]:
        """[M] hash of the state of the token's step, and of what its action began with: equal where both are."""
        found: list[int] = []
        before, step = 0, -1
        for index, token in zip(self.step_ids, self.targets, strict=True):
            if index != step:
                before, step = hash(self.states[index]), index
            found.append(before)
            before = hash((before, token))
        return tuple(found)


def written_episode(attempt: Trajectory, ids: Sequence[int], own: Sequence[bool]) -> Episode:
    """An attempt that was not sampled here as a token stream: `own` is True on the tokens of its actions.

    It has neither rewards nor log-probabilities of an engine: it can be imitated, and no more.
    """
    positions = [position for position, is_own in enumerate(own) if is_own]
    starts = [position == 0 or not own[position - 1] for position in positions]
    return Episode(
        trajectory_id=attempt.id,
        task_id=attempt.task_id,
        ids=tuple(ids),
        prompt_length=positions[0],
        predict=tuple(position - 1 for position in positions),
        step_ids=tuple(number - 1 for number in accumulate(starts)),
        engine_logprobs=(math.nan,) * len(positions),
        rewards=(0.0,) * sum(starts),
        temperature=1.0,
        truncated=False,
    )


def episode(scored: ScoredTrajectory, rewards: Sequence[float]) -> Episode | None:
    """As `sampled_episode`, of an attempt that is judged."""
    return sampled_episode(scored.trajectory, rewards)


def sampled_episode(trajectory: Trajectory, rewards: Sequence[float]) -> Episode | None:
    """The token stream of a trajectory, or None if nothing was sampled because the engine failed.

    Context after the last sampled token is kept only where its value is needed (a truncation).
    Raises DataError for a step that was not sampled by us, a first step without prompt tokens, and
    rewards that are not finite or not one a step.
    """
    where = f"trajectory {trajectory.id}"
    if len(rewards) != len(trajectory.steps):
        raise DataError(f"{len(rewards)} rewards for {len(trajectory.steps)} steps", where=where)
    if not all(map(math.isfinite, rewards)):
        raise DataError(f"rewards {list(rewards)} are not all finite", where=where, fix="look at its judgements")
    truncated = not trajectory.stop_reason.terminated
    sampled = [step for step in trajectory.steps if step.action_ids]
    unsampled_tail = truncated and len(sampled) == len(trajectory.steps) - 1 and not trajectory.steps[-1].action_ids
    if len(sampled) != len(trajectory.steps) and not unsampled_tail:
        raise DataError(
            "a step has no sampled tokens",
            where=where,
            fix="sample it with a policy; a demonstration is what the method sft learns from",
        )
    if not sampled:
        return None
    if not trajectory.steps[0].context_ids:
        raise DataError("its first step has no prompt tokens", where=where, fix="sample it again")
    if trajectory.conditions is None:
        raise DataError("does not say at which temperature it was sampled", where=where, fix="sample it again")
    ids: list[int] = []
    predict: list[int] = []
    step_ids: list[int] = []
    for index, step in enumerate(sampled):
        ids += step.context_ids
        predict += range(len(ids) - 1, len(ids) - 1 + len(step.action_ids))
        step_ids += [index] * len(step.action_ids)
        ids += step.action_ids
    if unsampled_tail:
        ids += trajectory.steps[-1].context_ids
    return Episode(
        trajectory_id=trajectory.id,
        task_id=trajectory.task_id,
        ids=tuple(ids),
        prompt_length=len(trajectory.steps[0].context_ids),
        predict=tuple(predict),
        step_ids=tuple(step_ids),
        engine_logprobs=tuple(logprob for step in sampled for logprob in step.action_logprobs),
        rewards=tuple(rewards[: len(sampled)]),
        temperature=trajectory.conditions.sampling.temperature,
        truncated=truncated,
        states=states_of(trajectory)[: len(sampled)],
    )

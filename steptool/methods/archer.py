"""ArCHer: a critic of whole actions above, a policy of tokens below (arXiv 2402.19446).

    1  select      attempts as token streams with a reward a step
    2  read        features of every state, and of what lies behind every action, of the policy before training
    3  critic      Q1, Q2 and V by temporal differences with targets that follow (`steptool.training.twin_critic`)
    4  actor       A_k = min(Q1, Q2)(s_k, a_k) − V(s_k) on every token of step k; the clipped surrogate of `step_ppo`
       3 and 4 `iterations` times

The critic learns from attempts of another policy than the present one, so one set of attempts serves several
iterations: V is what the policy of now may expect, by how much likelier than the old one it takes each action.

Where it departs from the paper: no attempts are sampled in between, so V looks at the actions that were taken, weighted
by min(π/π_start, importance_cap), and not at new ones; the critic is linear in the policy's own features and not a
model of its own; the actor is held by a clip and by its divergence from the start, as `step_ppo` is, so that
the two compare by their credit; advantages are whitened; there is no baseline within an action.

Limits. All tokens of an action share its credit. A linear critic on features that nobody trained for it can hold the
value of a state only as far as they tell states apart; `value_explained_variance` says how far that is. Where no reward
differs there is nothing to learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from steptool.core.errors import DataError
from steptool.core.fields import Many, Rate
from steptool.methods.base import Measured
from steptool.methods.clipped import ClippedMethod, ClippedObjective
from steptool.training import losses
from steptool.training.batch import Batch, pack
from steptool.training.credit import step_bounds, whiten
from steptool.training.episode import Episode
from steptool.training.job import Job
from steptool.training.measure import Measurement, measure
from steptool.training.model import PolicyWithValue
from steptool.training.siblings import returns_to_go
from steptool.training.trainer import LowerCache, optimise
from steptool.training.twin_critic import Transitions, TwinCritic


class Archer(ClippedMethod):
    class Config(ClippedMethod.Config):
        iterations: Many = 2
        """How often the critic learns, and then the actor, for `epochs` of `minibatches` with a rate that falls."""
        critic_updates: Many = 200
        """Of the critic, an iteration."""
        critic_batch: Many = 128
        """Steps that one of these looks at."""
        critic_learning_rate: Rate = 1e-3
        polyak: Annotated[float, Field(gt=0, le=1)] = 0.1
        """How far the targets follow at every update."""
        whiten: bool = True

    config: Config
    name: ClassVar[str] = "archer"

    def contrasted(self, episodes: list[Episode], gamma: float) -> tuple[list[Episode], Mapping[str, float]]:
        """All of them, where one earned more than another."""
        returns = [returns_to_go(item.rewards, gamma)[0] for item in episodes]
        differ = bool(returns) and max(returns) - min(returns) > 1e-9
        return (episodes if differ else []), {}

    def without_signal(self) -> DataError:
        return DataError(
            "no attempt earned more than another",
            fix="sample more tasks or attempts (sample.tasks, sample.attempts), or look at `reward` and at what the "
            "annotator gives",
        )

    def fit(self, policy: PolicyWithValue, job: Job) -> dict[str, float]:
        """As the base class says; each iteration has a checkpoint of its own."""
        examples = self.examples(job.data)
        batch, lower = pack(examples.episodes, job.row_tokens), LowerCache(policy)
        fingerprint = self._fingerprint(policy, batch, job)
        measured: Measured = {}
        history: list[dict[str, float]] = []
        for iteration in range(self.config.iterations):
            run = self._run(_iteration(job, iteration, len(history)), fingerprint)
            snapshot = run.resume()
            if snapshot:
                measured = snapshot.part("measured")
            elif iteration == 0:
                measured = self.prepare(policy, batch, lower, job.data)
                measured |= self._learned(policy, batch, measured, measured["old_logprobs"], job)
            else:
                now = measure(policy, batch, lower, reference=False).logprobs
                measured |= self._learned(policy, batch, measured, now, job, iteration)
            objective, optimizer = self.objective(policy, batch, measured), self.optimizer(policy)
            history += optimise(policy, batch, objective, optimizer, run, lower, measured=measured, snapshot=snapshot)
        policy.value_head.load_state_dict(_part(measured, "critic.v."))
        counts = {**examples.counts, "tasks": len(batch.groups), "rows": len(batch.rows), "tokens": batch.tokens}
        return {**counts, **self.summary(batch, measured, history)}

    def credit(
        self, policy: PolicyWithValue, batch: Batch, before: Measurement, penalties: Tensor, gamma: float
    ) -> Measured:
        """What the critic reads, and one that knows no action yet; `_learned` gives the advantages."""
        steps = {f"steps.{name}": value for name, value in vars(read(policy, batch)).items()}
        return steps | _named("critic.", TwinCritic(policy.value_head))

    def objective(self, policy: PolicyWithValue, batch: Batch, measured: Measured) -> ClippedObjective:
        advantages = measured["advantages"]
        if self.config.whiten:
            advantages = whiten(advantages, self.weights(batch))
        return ClippedObjective(**self.surrogate(batch, measured, advantages))

    def summary(self, batch: Batch, measured: Measured, history: Sequence[dict[str, float]]) -> dict[str, float]:
        """Of the batch before training, but for the advantages and values, which are those of the last critic."""
        result = super().summary(batch, measured, history)
        return {**result, "value_explained_variance": float(measured["explained"])}

    def _learned(
        self, policy: PolicyWithValue, batch: Batch, measured: Measured, now: Tensor, job: Job, iteration: int = 0
    ) -> Measured:
        """The critic after this iteration's updates, and the advantages [N] that it gives; `now` [N] are the policy's
        log-probabilities."""
        config, device, gamma = self.config, policy.device, job.data.reward.gamma
        change = now - measured["old_logprobs"]
        bounds = [
            (start + batch.starts[index], stop + batch.starts[index])
            for index, item in enumerate(batch.episodes)
            for start, stop in step_bounds(batch.step_ids(index), len(item.rewards))
        ]
        by_step = torch.stack([change[start:stop].sum() for start, stop in bounds])
        steps = Transitions(**_part(measured, "steps."))
        critic = TwinCritic(policy.value_head)
        critic.load_state_dict(_part(measured, "critic."))
        critic.to(device).learn(
            steps.to(device),
            losses.importance_weights(by_step, torch.zeros(len(by_step)), config.importance_cap).to(device),
            gamma=gamma,
            polyak=config.polyak,
            updates=config.critic_updates,
            batch=config.critic_batch,
            learning_rate=config.critic_learning_rate,
            generator=torch.Generator().manual_seed(job.seed * 1_000_003 + iteration),
        )
        advantages = critic.advantages(steps.to(device)).cpu()
        with torch.no_grad():
            values = critic.v(steps.states.to(device)[steps.at.to(device)]).cpu()
        returns = torch.tensor([value for item in batch.episodes for value in returns_to_go(item.rewards, gamma)])
        known = torch.cat([torch.full((len(item.rewards),), float(not item.truncated)) for item in batch.episodes])
        explained = losses.explained_variance(values, returns, known) if known.any() else 0.0
        lengths = torch.tensor([stop - start for start, stop in bounds])
        return {
            "advantages": advantages.repeat_interleave(lengths),
            "explained": torch.tensor(explained),
            **_named("critic.", critic.cpu()),
        }


def _iteration(job: Job, iteration: int, done: int) -> Job:
    """One of several trainings of a job, of which `done` optimiser steps lie behind."""

    def on_metrics(step: int, metrics: dict[str, float]) -> None:
        job.on_metrics(done + step, metrics)

    folder = job.checkpoint_dir and job.checkpoint_dir / str(iteration)
    return replace(job, seed=job.seed + 7919 * iteration, checkpoint_dir=folder, on_metrics=on_metrics)


def read(policy: PolicyWithValue, batch: Batch) -> Transitions:
    """The steps of a batch with the policy's features: of a state at the token that predicts the action's first, and
    behind an action at its last token."""
    read = [_readings(item) for item in batch.episodes]
    readings = pack(read, batch.row_tokens)
    features = measure(policy, readings, LowerCache(policy), reference=False).features
    at, behind, then = [], [], []
    for start, item in zip(readings.starts, batch.episodes, strict=False):
        places = [start + 2 * step for step in range(len(item.rewards))]
        at += places
        behind += [place + 1 for place in places]
        then += [*places[1:], start + 2 * len(places) if item.truncated else -1]
    rewards = torch.tensor([reward for item in batch.episodes for reward in item.rewards])
    return Transitions(features, features[behind], rewards, torch.tensor(at), torch.tensor(then))


def _readings(item: Episode) -> Episode:
    """The same stream with other places of interest: before and behind every action, in turn, and the end of a
    truncated attempt."""
    places = []
    for start, stop in step_bounds(torch.tensor(item.step_ids), len(item.rewards)):
        places += [item.predict[start], item.predict[stop - 1] + 1]
    if item.truncated:
        places.append(len(item.ids) - 1)
    # One token more, so that the last has one to predict; nobody asks how likely that is.
    count, ids = len(places), (*item.ids, item.ids[-1])
    return Episode(
        item.trajectory_id, item.task_id, ids, item.prompt_length, tuple(places), (0,) * count, (0.0,) * count, (0.0,),
        item.temperature, item.truncated,
    )  # fmt: skip


def _named(prefix: str, critic: TwinCritic) -> Measured:
    return {prefix + name: value for name, value in critic.state_dict().items()}


def _part(measured: Measured, prefix: str) -> Measured:
    return {name.removeprefix(prefix): value for name, value in measured.items() if name.startswith(prefix)}

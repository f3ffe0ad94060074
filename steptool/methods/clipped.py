"""The base class of methods that learn from their own attempts by the clipped surrogate; they differ in the advantage.

1  select      attempts as token streams with a reward a step (`rewarded`, `contrasted`)
2  measure     one pass without gradient: log pi_old, hidden states, those of the policy to stay close to
3  advantages  one number a sampled token
4  objective   the clipped surrogate and a KL, `epochs` x `minibatches` optimiser steps
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from steptool.core.errors import DataError, ValidationFailed
from steptool.core.fields import LARGEST, Bound, Weight
from steptool.core.types import ScoredTrajectory
from steptool.methods.base import AdapterMethod, Examples, Measured
from steptool.rewards.base import rewards_of
from steptool.rewards.costs import final_rewards
from steptool.training import losses
from steptool.training.batch import Batch, Row
from steptool.training.episode import Episode, episode
from steptool.training.job import Data
from steptool.training.measure import Measurement, engine_kl, measure
from steptool.training.model import Output, PolicyWithValue
from steptool.training.trainer import LowerCache, Objective

Rewarded = tuple[Sequence[ScoredTrajectory], Sequence[Sequence[float]], Mapping[str, float]]
"""Attempts, what each of their steps earns, and how many were left out for which reason."""


class ClippedMethod(AdapterMethod):
    class Config(AdapterMethod.Config):
        clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.8
        clip_high: Bound = 4.0
        dual_clip: Annotated[float, Field(gt=1, le=LARGEST)] = 3.0
        kl_to: Literal["start", "reference"] = "start"
        """The policy that the arm starts from, as PPO's penalty form has it (arXiv 1707.06347, 4), or the plain model
        below all adapters. In the loss, the divergence from it is exact, over the whole vocabulary."""
        kl_coef: Weight = 1.0
        importance_cap: Bound = 2.0
        max_engine_kl: Weight = 0.05
        """Most divergence, in nats per token, between the policy in training and in the engine that sampled from it."""

    config: Config
    name: ClassVar[str]
    """As params.yaml calls the method, for errors."""
    needs = frozenset({"scored", "sampled"})

    # What a method says

    def rewarded(self, data: Data) -> Rewarded:
        """The attempts to learn from, with a reward a step: by default all, by the reward form of the data."""
        return data.scored, rewards_of(data.reward, data.scored), {}

    @abstractmethod
    def contrasted(self, episodes: list[Episode], gamma: float) -> tuple[list[Episode], Mapping[str, float]]:
        """The attempts that have an advantage, and how many were left out for which reason."""

    @abstractmethod
    def credit(
        self, policy: PolicyWithValue, batch: Batch, before: Measurement, penalties: Tensor, gamma: float
    ) -> Measured:
        """`advantages` [N], and what else the objective keeps fixed. `penalties` [N] reduce the rewards."""

    @property
    def kl_in_loss(self) -> bool:
        return self.config.kl_coef > 0

    def weights(self, batch: Batch) -> Tensor:
        """[N] how much each token counts in the mean of the loss: by default all the same."""
        return batch.weights(by_step=False)

    # What follows from it

    def examples(self, data: Data) -> Examples:
        """Raises DataError if nothing is left to train on, or if attempts were not sampled from the policy."""
        refuse_imported(data.scored)
        scored, rewards, left_out = self.rewarded(data)
        episodes, empty = sampled_episodes(scored, rewards)
        counts = {"trajectories": len(data.scored), **left_out, "skipped_empty": empty}
        episodes, skipped = self.contrasted(episodes, data.reward.gamma)
        if not episodes:
            raise self.without_signal()
        return Examples(episodes, {**counts, **skipped})

    def without_signal(self) -> DataError:
        return DataError(
            "no trajectory carries a signal to train on",
            fix="sample more tasks or attempts (sample.tasks, sample.attempts)",
        )

    def penalties(self, batch: Batch, before: Measurement) -> Tensor:
        """[N] what the divergence from the reference takes off the rewards; nothing, where it counts in the loss."""
        return torch.zeros(batch.tokens)

    def prepare(self, policy: PolicyWithValue, batch: Batch, lower: LowerCache, data: Data) -> Measured:
        """Raises ValidationFailed where the engine sampled from another distribution than this policy's."""
        before = measure(policy, batch, lower, reference=self.asks_reference)
        check_engine(self.name, batch, before.logprobs, self.config.max_engine_kl)
        measured = {"old_logprobs": before.logprobs, "entropy": before.entropy}
        if self.kl_in_loss:
            anchor = before.features if before.reference_features is None else before.reference_features
            measured["reference_features"] = anchor
        return measured | self.credit(policy, batch, before, self.penalties(batch, before), data.reward.gamma)

    @property
    def asks_reference(self) -> bool:
        """Whether the plain model below all adapters is measured, too."""
        return self.kl_in_loss and self.config.kl_to == "reference"

    def objective(self, policy: PolicyWithValue, batch: Batch, measured: Measured) -> ClippedObjective:
        return ClippedObjective(**self.surrogate(batch, measured, measured["advantages"]))

    def surrogate(self, batch: Batch, measured: Measured, advantages: Tensor) -> dict[str, Any]:
        """The fields of a ClippedObjective by name."""
        old = measured["old_logprobs"]
        return {
            "config": self.config,
            "weights": self.weights(batch),
            "old_logprobs": old,
            "advantages": advantages,
            "importance": losses.importance_weights(old, batch.engine_logprobs(), self.config.importance_cap),
            "reference_features": measured.get("reference_features"),
            "diverged": diverged(self.name),
        }

    def summary(self, batch: Batch, measured: Measured, history: Sequence[dict[str, float]]) -> dict[str, float]:
        """Statistics of the batch before training."""
        return {
            "entropy": float(measured["entropy"].mean()),
            "engine_kl": engine_kl(batch, measured["old_logprobs"]),
            "reward_mean": sum(sum(e.rewards) for e in batch.episodes) / len(batch.episodes),
            "advantage_std": float(measured["advantages"].std(correction=0)),
            **advantage_by_step(batch, measured["advantages"]),
        }


def refuse_imported(scored: Sequence[ScoredTrajectory]) -> None:
    """Raises DataError for attempts that were imported from traces."""
    if imported := [item for item in scored if item.trajectory.conditions is None]:
        raise DataError(
            f"{len(imported)} of {len(scored)} trajectories are imported: they were not sampled from this policy, so "
            "no token has a probability ratio, and PPO cannot learn from them",
            where=f"trajectory {imported[0].trajectory.id}",
            fix="learn from them with rft, or as demonstrations with sft; then let a round sample from that arm, and "
            "PPO learn from this",
        )


def sampled_episodes(
    scored: Sequence[ScoredTrajectory], rewards: Sequence[Sequence[float]]
) -> tuple[list[Episode], int]:
    """The attempts as token streams, and how many have no tokens. Raises DataError for greedy ones."""
    found = [episode(item, own) for item, own in zip(scored, rewards, strict=True)]
    episodes = [item for item in found if item is not None]
    if greedy := next((item for item in episodes if item.temperature == 0), None):
        raise DataError(
            "was sampled at temperature 0, so no probability ratio exists",
            where=f"trajectory {greedy.trajectory_id}",
            fix="set sample.temperature above 0 and sample again",
        )
    return episodes, len(found) - len(episodes)


def check_engine(method: str, batch: Batch, old_logprobs: Tensor, most: float) -> None:
    """Raises ValidationFailed where the engine sampled from another distribution than the policy's."""
    found = engine_kl(batch, old_logprobs)
    if not found <= most:
        raise ValidationFailed(
            f"engine_kl is {found:.3g}, above methods.{method}.max_engine_kl = {most:g}: the engine sampled from "
            "another distribution than the policy that is trained, and no step was taken",
            fix="set sample.top_p: 1.0 and model.dtype: float32, then run `dvc repro`, which samples again; if it "
            "stays, vLLM and Transformers disagree about this architecture: set model.base to another model",
        )


def diverged(method: str) -> str:
    """What to do about a loss that is not finite."""
    return (
        f"lower methods.{method}.learning_rate, then run the same command again; if it stays, look at that "
        "trajectory's rewards"
    )


def rewarded_at_the_end(data: Data, method: str, *, costs: bool = True) -> Rewarded:
    """The attempts that have a verdict, with nothing paid but at their last step (`final_rewards`).

    Raises DataError where none has a verdict: `method` learns from nothing else.
    """
    judged = [item for item in data.scored if item.solved is not None]
    if data.scored and not judged:
        raise DataError(
            f"none of {len(data.scored)} trajectories has a verdict, and {method} learns from nothing else",
            fix="give training tasks a check, take a world or an annotator that can tell, or train with step_ppo and "
            "`reward: {use: auto}`, which learns from the calls; else take the arm out of `arms`",
        )
    rewards = [final_rewards(data.reward, item, costs=costs) for item in judged]
    return judged, rewards, {"skipped_unjudged": len(data.scored) - len(judged)}


@dataclass(kw_only=True)
class ClippedObjective(Objective):
    """Clipped surrogate and, if asked for, a KL term; tensors are [N]."""

    config: ClippedMethod.Config
    weights: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    importance: Tensor
    reference_features: Tensor | None
    diverged: str

    def loss(self, row: Row, output: Output, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
        config, weights = self.config, on(row, self.weights, output)
        loss, stats = losses.policy_loss(
            output.logprobs,
            on(row, self.old_logprobs, output),
            on(row, self.advantages, output),
            on(row, self.importance, output),
            weights,
            denominator,
            losses.Clip(config.clip_low, config.clip_high, config.dual_clip),
        )
        stats["policy_loss"] = loss.detach()
        if output.divergence is not None:
            kl = losses.weighted_mean(output.divergence, weights, denominator)
            stats[f"kl_to_{config.kl_to}"] = kl.detach()
            loss = loss + config.kl_coef * kl
        return loss, stats


def on(row: Row, flat: Tensor, output: Output) -> Tensor:
    """The row's part of a tensor [N], where its log-probabilities are."""
    return flat[row.tokens].to(output.logprobs.device)


def advantage_by_step(batch: Batch, advantages: Tensor) -> dict[str, float]:
    """Mean absolute advantage of the tokens of the first, second, … step, before whitening: it shows where decisions
    matter. The plain mean would not: over attempts that share a history it is 0.
    """
    steps = torch.cat([batch.step_ids(i) for i in range(len(batch.episodes))])
    return {f"advantage_step_{k + 1}": float(advantages[steps == k].abs().mean()) for k in range(int(steps.max()) + 1)}

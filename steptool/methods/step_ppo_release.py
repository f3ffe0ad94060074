"""What the code that was released with the paper computes (github.com/yuyq18/StepTool, 121a6ac), to compare with.

Kept as it is there: a step's reward is multiplied by the number of steps that follow, so that the verdict counts
nothing; GAE walks the tokens of the environment with their values and rewards set to 0 (`steptool.training.release`);
the divergence from the reference is taken off the rewards token by token; advantages are whitened over all tokens;
policy and value are clipped at 0.2, and gamma, lambda, kl_coef and value_coef are its settings for Qwen2.

It departs where that would compare something else: attempts are sampled from the policy that is trained, in the prompt
and format of this project, and their token ids are the engine's (there: a file of texts, encoded again, cut at 4096
tokens); a round is one batch, so the KL coefficient does not adapt, and the value head is fitted to the returns before
it is used; the head does not train the policy below it; the optimiser, the adapter and the number of steps are those of
this project (there: four epochs over a batch of eight); a mean ratio above 10 does not drop a minibatch.

Its limits are its point. The reward of an attempt grows with the square of its number of calls, so it learns to call
more, and nothing but calls. Without a reward for calls it learns nothing at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from steptool.core.errors import DataError
from steptool.core.fields import LARGEST, Bound, Fraction, Natural, Rate, Weight
from steptool.methods.base import AdapterMethod, Examples, Measured
from steptool.methods.clipped import (
    advantage_by_step,
    check_engine,
    diverged,
    on,
    refuse_imported,
    sampled_episodes,
)
from steptool.rewards.base import rewards_of
from steptool.training import losses
from steptool.training.batch import Batch, Row
from steptool.training.credit import Credit
from steptool.training.job import Data
from steptool.training.measure import fit_value_head, measure
from steptool.training.model import Output, PolicyWithValue, ValueHead
from steptool.training.release import release_gae, release_rewards, release_whiten
from steptool.training.trainer import LowerCache, Objective


class StepPpoRelease(AdapterMethod):
    class Config(AdapterMethod.Config):
        lambda_token: Fraction = 0.95
        clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
        clip_value: Bound = 0.2
        kl_coef: Weight = 0.3
        """Of log pi − log pi_ref in the reward of a token; the reference is the plain model below all adapters."""
        value_coef: Weight = 0.1
        value_learning_rate: Rate = 1e-3
        value_warmup: Natural = 20
        """Steps that fit the value head before it is used."""
        max_engine_kl: Weight = 0.05
        """Most divergence, in nats per token, between the policy in training and in the engine that sampled from it."""

    config: Config
    name: ClassVar[str] = "step_ppo_release"
    needs = frozenset({"scored", "sampled"})

    def examples(self, data: Data) -> Examples:
        """Raises DataError where no step but a last one earns anything."""
        refuse_imported(data.scored)
        episodes, empty = sampled_episodes(data.scored, rewards_of(data.reward, data.scored))
        if not any(map(any, (release_rewards(item.rewards) for item in episodes))):
            raise DataError(
                "no step but the last of an attempt earns anything, and step_ppo_release counts no other",
                fix="set reward: {use: paper} with an alpha above 0, sample attempts of more than one step, or train "
                "with step_ppo",
            )
        return Examples(episodes, {"trajectories": len(data.scored), "skipped_empty": empty})

    def prepare(self, policy: PolicyWithValue, batch: Batch, lower: LowerCache, data: Data) -> Measured:
        """Raises ValidationFailed where the engine sampled from another distribution than this policy's."""
        config, head = self.config, policy.value_head
        before = measure(policy, batch, lower, reference=config.kl_coef > 0)
        check_engine(self.name, batch, before.logprobs, config.max_engine_kl)
        penalties = torch.zeros(batch.tokens)
        if before.reference is not None:
            penalties = config.kl_coef * (before.logprobs - before.reference)
        gamma, features = data.reward.gamma, before.features.to(head.linear.weight.device)
        undecayed = _each(batch, torch.zeros(batch.tokens), penalties, gamma, 1.0).targets
        everywhere = torch.ones(batch.tokens).to(features.device)
        fit_value_head(
            head,
            features,
            undecayed.to(features.device),
            everywhere,
            steps=config.value_warmup,
            learning_rate=config.value_learning_rate,
        )
        with torch.no_grad():
            values = head(features).cpu()
        credit = _each(batch, values, penalties, gamma, config.lambda_token)
        measured = {"old_logprobs": before.logprobs, "entropy": before.entropy, "values": values}
        return {**measured, "advantages": credit.advantages, "targets": credit.targets}

    def objective(self, policy: PolicyWithValue, batch: Batch, measured: Measured) -> ReleaseObjective:
        return ReleaseObjective(
            weights=batch.weights(by_step=False),
            config=self.config,
            head=policy.value_head,
            old_logprobs=measured["old_logprobs"],
            advantages=release_whiten(measured["advantages"]),
            values=measured["values"],
            targets=measured["targets"],
        )

    def optimizer(self, policy: PolicyWithValue) -> torch.optim.Optimizer:
        adam = super().optimizer(policy)
        adam.add_param_group({"params": policy.value_head.parameters(), "lr": self.config.value_learning_rate})
        return adam

    def summary(self, batch: Batch, measured: Measured, history: Sequence[dict[str, float]]) -> dict[str, float]:
        """Statistics of the batch before training."""
        return {
            "entropy": float(measured["entropy"].mean()),
            "reward_mean": sum(sum(release_rewards(e.rewards)) for e in batch.episodes) / len(batch.episodes),
            "advantage_std": float(measured["advantages"].std(correction=0)),
            **advantage_by_step(batch, measured["advantages"]),
        }


def _each(batch: Batch, values: Tensor, penalties: Tensor, gamma: float, lambda_: float) -> Credit:
    """`release_gae` of every trajectory, [N] in float32."""
    parts = [
        release_gae(
            release_rewards(item.rewards),
            values[batch.tokens_of(index)],
            item.step_ids,
            item.predict,
            gamma=gamma,
            lambda_=lambda_,
            penalties=penalties[batch.tokens_of(index)],
        )
        for index, item in enumerate(batch.episodes)
    ]
    return Credit(torch.cat([p.advantages for p in parts]).float(), torch.cat([p.targets for p in parts]).float())


@dataclass
class ReleaseObjective(Objective):
    """PPO's clipped surrogate and clipped value loss; tensors are [N]."""

    weights: Tensor
    config: StepPpoRelease.Config
    head: ValueHead
    old_logprobs: Tensor
    advantages: Tensor
    values: Tensor
    targets: Tensor
    diverged = diverged(StepPpoRelease.name)

    def loss(self, row: Row, output: Output, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        weights, old, advantages = (
            on(row, flat, output) for flat in (self.weights, self.old_logprobs, self.advantages)
        )
        unclipped = losses.Clip(config.clip, config.clip, dual=LARGEST)
        loss, stats = losses.policy_loss(
            output.logprobs, old, advantages, torch.ones_like(weights), weights, denominator, unclipped
        )
        stats["policy_loss"] = loss.detach()
        before, targets, values = (
            on(row, self.values, output),
            on(row, self.targets, output),
            self.head(output.features),
        )
        near = before + (values - before).clamp(-config.clip_value, config.clip_value)
        worse = torch.maximum((values - targets).square(), (near - targets).square())
        value_loss = 0.5 * losses.weighted_mean(worse, weights, denominator)
        stats["value_loss"] = value_loss.detach()
        return loss + config.value_coef * value_loss, stats

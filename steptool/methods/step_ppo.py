"""Step-grained PPO on scored trajectories (StepTool, arXiv 2410.07745).

    1  select      attempts as token streams with a reward a step; without a critic, where siblings ended otherwise
    2  measure     one pass without gradient: log pi_old, hidden states, log pi_ref if a KL is asked for
    3  credit      a value head fitted to the empirical returns and GAE with it, or against the other attempts
    4  objective   the clipped surrogate with whitened advantages, `epochs` x `minibatches` optimiser steps

Training uses the tokens that were sampled: their ids and log-probabilities come from the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from steptool.core.errors import DataError, ParamsError, ValidationFailed
from steptool.core.fields import LARGEST, Bound, Fraction, Natural, Rate, Weight
from steptool.methods.base import AdapterMethod, Examples, Measured
from steptool.rewards.base import Shapes, rewards_of
from steptool.training import losses
from steptool.training.advantages import critic_advantages, sibling_advantages
from steptool.training.batch import Batch, Row
from steptool.training.credit import Discounts, step_gae, token_gae, whiten
from steptool.training.episode import episode
from steptool.training.job import Data
from steptool.training.measure import Measurement, engine_kl, fit_value_head, measure
from steptool.training.model import Output, PolicyWithValue, ValueHead
from steptool.training.siblings import Comparison, with_different_siblings
from steptool.training.trainer import LowerCache, Objective


class StepPpo(AdapterMethod):
    class Config(AdapterMethod.Config, Comparison):
        credit: Literal["token", "step"] = "token"
        gamma_token: Fraction = 1.0
        lambda_token: Fraction = 1.0
        whiten: bool = True
        clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.8
        clip_high: Bound = 4.0
        dual_clip: Annotated[float, Field(gt=1, le=LARGEST)] = 3.0
        kl_in: Literal["none", "reward", "loss"] = "loss"
        kl_to: Literal["start", "reference"] = "start"
        """The policy that the arm starts from, as PPO's penalty form has it (arXiv 1707.06347, 4), or the plain model
        below all adapters. In the loss, the divergence from it is exact, over the whole vocabulary."""
        kl_coef: Weight = 1.0
        kl_clamp: Bound = 5.0
        """Bound on the log-ratio to the reference in the reward, in nats."""
        importance_cap: Bound = 2.0
        max_engine_kl: Weight = 0.05
        """Most divergence, in nats per token, between the policy in training and in the engine that sampled from it."""
        value_learning_rate: Rate = 1e-3
        value_warmup: Natural = 20
        """Steps that fit the value head before it is used."""
        value_coef: Weight = 0.5

        @model_validator(mode="after")
        def _kl_belongs_somewhere(self) -> Self:
            if (self.kl_in == "none") != (self.kl_coef == 0):
                raise ValueError("kl_coef is above 0 exactly when kl_in is reward or loss")
            if self.kl_in == "reward" and self.kl_to == "start":
                raise ValueError(
                    "kl_in: reward needs kl_to: reference; before the first step the divergence from the start is 0"
                )
            return self

    config: Config
    needs = frozenset({"scored", "sampled"})

    def examples(self, data: Data) -> Examples:
        """Raises DataError if nothing is left to train on, ParamsError where tokens are discounted between the steps of
        shaped rewards."""
        config, reward = self.config, data.reward
        if imported := [item for item in data.scored if item.trajectory.conditions is None]:
            raise DataError(
                f"{len(imported)} of {len(data.scored)} trajectories are imported: they were not sampled from this "
                "policy, so no token has a probability ratio, and PPO cannot learn from them",
                where=f"trajectory {imported[0].trajectory.id}",
                fix="learn from them with rft, or as demonstrations with sft; then let a round sample from that arm, "
                "and PPO learn from this",
            )
        if config.gamma_token < 1 and isinstance(reward, Shapes) and reward.shapes:
            raise ParamsError(
                f"methods.step_ppo.gamma_token is {config.gamma_token}, and reward.use is a potential of steps, not of "
                "tokens: its shaping cancels only where tokens are not discounted",
                where="params.yaml",
                fix="set methods.step_ppo.gamma_token: 1.0, or reward.alpha: 0",
            )
        rewards = rewards_of(reward, data.scored)
        found = [episode(item, own) for item, own in zip(data.scored, rewards, strict=True)]
        episodes = [item for item in found if item is not None]
        counts = {"trajectories": len(found), "skipped_empty": len(found) - len(episodes)}
        if greedy := next((item for item in episodes if item.temperature == 0), None):
            raise DataError(
                "was sampled at temperature 0, so no probability ratio exists",
                where=f"trajectory {greedy.trajectory_id}",
                fix="set sample.temperature above 0 and sample again",
            )
        if config.baseline != "critic":
            episodes, skipped = with_different_siblings(episodes, config, reward.gamma)
            counts |= skipped
        if not episodes:
            raise DataError(
                "no trajectory carries a signal to train on",
                fix="sample more tasks or attempts (sample.tasks, sample.attempts), or set methods.step_ppo.baseline "
                "to critic",
            )
        return Examples(episodes, counts)

    def prepare(self, policy: PolicyWithValue, batch: Batch, lower: LowerCache, data: Data) -> Measured:
        """Raises ValidationFailed where the engine sampled from another distribution than this policy's."""
        config = self.config
        before = measure(policy, batch, lower, reference=config.kl_in != "none" and config.kl_to == "reference")
        self._check_engine(batch, before.logprobs)
        measured = {"old_logprobs": before.logprobs, "entropy": before.entropy}
        penalties = torch.zeros(batch.tokens)
        if config.kl_in == "reward" and before.reference is not None:
            penalties = config.kl_coef * losses.kl_k1(before.logprobs, before.reference, config.kl_clamp)
        if config.kl_in == "loss":
            anchor = before.features if before.reference_features is None else before.reference_features
            measured["reference_features"] = anchor
        if config.baseline == "critic":
            return measured | self._critic_credit(policy.value_head, batch, before, penalties, data.reward.gamma)
        return measured | {"advantages": sibling_advantages(batch, penalties, config, data.reward.gamma)}

    def objective(self, policy: PolicyWithValue, batch: Batch, measured: Measured) -> PpoObjective:
        config, advantages = self.config, measured["advantages"]
        weights = batch.weights(by_step=config.credit == "step")
        if config.whiten:
            # What `branches` gives has mean 0 as it is; with a step's weights a shift would push every other token.
            centre = config.credit == "token" or config.baseline != "branches"
            advantages = whiten(advantages, weights, centre=centre)
        old, engine = measured["old_logprobs"], batch.engine_logprobs()
        return PpoObjective(
            head=policy.value_head,
            config=config,
            weights=weights,
            old_logprobs=old,
            advantages=advantages,
            importance=losses.importance_weights(old, engine, config.importance_cap),
            targets=measured.get("targets"),
            states=measured.get("states"),
            reference_features=measured.get("reference_features"),
        )

    def optimizer(self, policy: PolicyWithValue) -> torch.optim.Optimizer:
        adam = super().optimizer(policy)
        adam.add_param_group({"params": policy.value_head.parameters(), "lr": self.config.value_learning_rate})
        return adam

    def summary(self, batch: Batch, measured: Measured, history: Sequence[dict[str, float]]) -> dict[str, float]:
        """Statistics of the batch before training."""
        result = {
            "entropy": float(measured["entropy"].mean()),
            "engine_kl": engine_kl(batch, measured["old_logprobs"]),
            "reward_mean": sum(sum(e.rewards) for e in batch.episodes) / len(batch.episodes),
            "advantage_std": float(measured["advantages"].std(correction=0)),
        }
        result |= advantage_by_step(batch, measured["advantages"])
        if "returns" in measured:
            result["value_explained_variance"] = losses.explained_variance(
                measured["values"], measured["returns"], measured["states"]
            )
        return result

    def _check_engine(self, batch: Batch, old_logprobs: Tensor) -> None:
        found, most = engine_kl(batch, old_logprobs), self.config.max_engine_kl
        if not found <= most:
            raise ValidationFailed(
                f"engine_kl is {found:.3g}, above methods.step_ppo.max_engine_kl = {most:g}: the engine sampled from "
                "another distribution than the policy that is trained, and no step was taken",
                fix="set sample.top_p: 1.0 and model.dtype: float32, then run `dvc repro`, which samples again; if it "
                "stays, vLLM and Transformers disagree about this architecture: set model.base to another model",
            )

    def _critic_credit(
        self, head: ValueHead, batch: Batch, before: Measurement, penalties: Tensor, gamma: float
    ) -> Measured:
        """Fit the value head, then GAE with it."""
        config, device = self.config, head.linear.weight.device
        estimate = token_gae if config.credit == "token" else step_gae
        features, end_features = before.features.to(device), before.end_features.to(device)
        states = batch.first_tokens() if config.credit == "step" else torch.ones(batch.tokens)
        nothing, no_ends = torch.zeros(batch.tokens), torch.zeros(len(batch.episodes))
        undecayed = Discounts(gamma, 1.0, config.gamma_token, 1.0)
        returns = critic_advantages(batch, estimate, undecayed, nothing, no_ends, penalties).targets
        known = torch.cat([torch.full((len(e.predict),), float(not e.truncated)) for e in batch.episodes])
        fit_value_head(
            head,
            features,
            returns.to(device),
            (states * known).to(device),
            steps=config.value_warmup,
            learning_rate=config.value_learning_rate,
        )
        with torch.no_grad():
            values, ends = head(features).cpu(), head(end_features).cpu()
        discounts = Discounts(gamma, config.lambda_step, config.gamma_token, config.lambda_token)
        credit = critic_advantages(batch, estimate, discounts, values, ends, penalties)
        return {**credit._asdict(), "states": states, "values": values, "returns": returns}


@dataclass
class PpoObjective(Objective):
    """Clipped surrogate, value loss and, if asked for, a KL term; tensors are [N] where nothing else is said."""

    head: ValueHead
    config: StepPpo.Config
    weights: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    importance: Tensor
    targets: Tensor | None
    states: Tensor | None
    """1 where the value is trained: every token, or the first of each step."""
    reference_features: Tensor | None
    diverged = (
        "lower methods.step_ppo.learning_rate, then run the same command again; if it stays, look at that trajectory's "
        "rewards"
    )

    def loss(self, row: Row, output: Output, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
        def of(flat: Tensor) -> Tensor:
            return flat[row.tokens].to(output.logprobs.device)

        config, weights = self.config, of(self.weights)
        loss, stats = losses.policy_loss(
            output.logprobs,
            of(self.old_logprobs),
            of(self.advantages),
            of(self.importance),
            weights,
            denominator,
            losses.Clip(config.clip_low, config.clip_high, config.dual_clip),
        )
        stats["policy_loss"] = loss.detach()
        if output.divergence is not None:
            kl = losses.weighted_mean(output.divergence, weights, denominator)
            stats[f"kl_to_{config.kl_to}"] = kl.detach()
            loss = loss + config.kl_coef * kl
        if self.targets is not None and self.states is not None:
            values, targets, states = self.head(output.features), of(self.targets), of(self.states)
            value_loss = losses.value_loss(values, targets, states, denominator)
            loss = loss + config.value_coef * value_loss
            stats["value_loss"] = value_loss.detach()
            error = targets - values.detach()
            for name, x in {"error": error, "target": targets}.items():
                stats[f"{name}.1"] = losses.weighted_mean(x, states, denominator)
                stats[f"{name}.2"] = losses.weighted_mean(x.square(), states, denominator)
        return loss, stats

    def metrics(self, sums: dict[str, float]) -> dict[str, float]:
        """The sums, with the explained variance in place of the moments that it is computed from."""
        metrics = {name: value for name, value in sums.items() if "." not in name}
        if "target.1" in sums:
            unexplained, spread = (sums[f"{x}.2"] - sums[f"{x}.1"] ** 2 for x in ("error", "target"))
            metrics["explained_variance"] = 1 - unexplained / spread if spread > 0 else 0.0
        return metrics


def advantage_by_step(batch: Batch, advantages: Tensor) -> dict[str, float]:
    """Mean absolute advantage of the tokens of the first, second, … step, before whitening: it shows where decisions
    matter. The plain mean would not: over attempts that share a history it is 0.
    """
    steps = torch.cat([batch.step_ids(i) for i in range(len(batch.episodes))])
    return {f"advantage_step_{k + 1}": float(advantages[steps == k].abs().mean()) for k in range(int(steps.max()) + 1)}

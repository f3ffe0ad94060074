"""Step-grained PPO on scored trajectories (StepTool, arXiv 2410.07745).

    1  select      attempts as token streams with a reward a step; without a critic, where siblings ended otherwise
    2  measure     one pass without gradient: log pi_old, hidden states, log pi_ref if a KL is asked for
    3  credit      a value head fitted to the empirical returns and GAE with it, or against the other attempts
    4  objective   the clipped surrogate with whitened advantages, `epochs` x `minibatches` optimiser steps

Training uses the tokens that were sampled: their ids and log-probabilities come from the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor

from steptool.core.errors import DataError, ParamsError
from steptool.core.fields import Bound, Fraction, Natural, Rate, Weight
from steptool.methods.base import Measured
from steptool.methods.clipped import ClippedMethod, ClippedObjective, Rewarded, on
from steptool.rewards.base import Shapes
from steptool.training import losses
from steptool.training.advantages import critic_advantages, sibling_advantages
from steptool.training.batch import Batch, Row
from steptool.training.credit import Discounts, step_gae, token_gae, whiten
from steptool.training.episode import Episode
from steptool.training.job import Data
from steptool.training.measure import Measurement, fit_value_head
from steptool.training.model import Output, PolicyWithValue, ValueHead
from steptool.training.siblings import Comparison, with_different_siblings


class StepPpo(ClippedMethod):
    """Its limits: without a critic it needs several attempts at a task, of which some end otherwise, and gives no
    credit where an attempt is alone; with one, the value head is fitted to the attempts of one round. A form that pays
    calls whatever comes of them is gamed by repeating them.
    """

    class Config(ClippedMethod.Config, Comparison):
        credit: Literal["token", "step"] = "token"
        gamma_token: Fraction = 1.0
        lambda_token: Fraction = 1.0
        whiten: bool = True
        kl_in: Literal["none", "reward", "loss"] = "loss"
        kl_clamp: Bound = 5.0
        """Bound on the log-ratio to the reference in the reward, in nats."""
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
    name: ClassVar[str] = "step_ppo"

    def rewarded(self, data: Data) -> Rewarded:
        """Raises ParamsError where tokens are discounted between the steps of shaped rewards."""
        config, reward = self.config, data.reward
        if config.gamma_token < 1 and isinstance(reward, Shapes) and reward.shapes:
            raise ParamsError(
                f"methods.{self.name}.gamma_token is {config.gamma_token}, and reward.use is a potential of steps, not "
                "of tokens: its shaping cancels only where tokens are not discounted",
                where="params.yaml",
                fix=f"set methods.{self.name}.gamma_token: 1.0, or reward.alpha: 0",
            )
        return super().rewarded(data)

    def contrasted(self, episodes: list[Episode], gamma: float) -> tuple[list[Episode], Mapping[str, float]]:
        if self.config.baseline == "critic":
            return episodes, {}
        return with_different_siblings(episodes, self.config, gamma)

    def without_signal(self) -> DataError:
        return DataError(
            "no trajectory carries a signal to train on",
            fix="sample more tasks or attempts (sample.tasks, sample.attempts), or set "
            f"methods.{self.name}.baseline to critic",
        )

    @property
    def kl_in_loss(self) -> bool:
        return self.config.kl_in == "loss"

    @property
    def asks_reference(self) -> bool:
        return self.config.kl_in != "none" and self.config.kl_to == "reference"

    def weights(self, batch: Batch) -> Tensor:
        return batch.weights(by_step=self.config.credit == "step")

    def penalties(self, batch: Batch, before: Measurement) -> Tensor:
        config = self.config
        if config.kl_in == "reward" and before.reference is not None:
            return config.kl_coef * losses.kl_k1(before.logprobs, before.reference, config.kl_clamp)
        return super().penalties(batch, before)

    def credit(
        self, policy: PolicyWithValue, batch: Batch, before: Measurement, penalties: Tensor, gamma: float
    ) -> Measured:
        if self.config.baseline == "critic":
            return self._critic_credit(policy.value_head, batch, before, penalties, gamma)
        return {"advantages": sibling_advantages(batch, penalties, self.config, gamma)}

    def objective(self, policy: PolicyWithValue, batch: Batch, measured: Measured) -> PpoObjective:
        config, advantages = self.config, measured["advantages"]
        if config.whiten:
            # What `branches` gives has mean 0 as it is; with a step's weights a shift would push every other token.
            centre = config.credit == "token" or config.baseline != "branches"
            advantages = whiten(advantages, self.weights(batch), centre=centre)
        return PpoObjective(
            **self.surrogate(batch, measured, advantages),
            head=policy.value_head,
            value_coef=config.value_coef,
            targets=measured.get("targets"),
            states=measured.get("states"),
        )

    def optimizer(self, policy: PolicyWithValue) -> torch.optim.Optimizer:
        adam = super().optimizer(policy)
        adam.add_param_group({"params": policy.value_head.parameters(), "lr": self.config.value_learning_rate})
        return adam

    def summary(self, batch: Batch, measured: Measured, history: Sequence[dict[str, float]]) -> dict[str, float]:
        result = super().summary(batch, measured, history)
        if "returns" in measured:
            result["value_explained_variance"] = losses.explained_variance(
                measured["values"], measured["returns"], measured["states"]
            )
        return result

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


@dataclass(kw_only=True)
class PpoObjective(ClippedObjective):
    """Clipped surrogate, value loss and, if asked for, a KL term; tensors are [N]."""

    head: ValueHead
    value_coef: float
    targets: Tensor | None
    states: Tensor | None
    """1 where the value is trained: every token, or the first of each step."""

    def loss(self, row: Row, output: Output, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
        loss, stats = super().loss(row, output, denominator)
        if self.targets is not None and self.states is not None:
            targets, states = on(row, self.targets, output), on(row, self.states, output)
            values = self.head(output.features)
            value_loss = losses.value_loss(values, targets, states, denominator)
            loss = loss + self.value_coef * value_loss
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

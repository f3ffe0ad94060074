"""Step-grained PPO on scored trajectories (StepTool, arXiv 2410.07745).

    1  measure     one pass without gradient: log pi_old, hidden states, log pi_ref if a KL is asked for
    2  value head  fitted to the empirical returns on those hidden states: no further pass
    3  advantages  token form, step form, or against the other attempts at the task; whitened over all
    4  optimise    `epochs` x `minibatches` optimiser steps of the clipped surrogate

What was sampled is what is trained on: token ids and log-probabilities come from the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from steptool.config.settings import TrainParams
from steptool.core.errors import DataError, ValidationFailed
from steptool.core.types import ScoredTrajectory
from steptool.training import losses
from steptool.training.batch import Batch, Row, episode, pack
from steptool.training.credit import whiten
from steptool.training.measure import comparable, prepare
from steptool.training.model import Output, PolicyWithValue, ValueHead, adapter_groups
from steptool.training.trainer import LowerCache, OnMetrics, Run, fingerprint, optimise


def train_ppo(
    policy: PolicyWithValue,
    scored: Sequence[ScoredTrajectory],
    rewards: Sequence[Sequence[float]],
    params: TrainParams,
    *,
    seed: int,
    on_metrics: OnMetrics = lambda step, metrics: None,
    checkpoint_dir: Path | None = None,
) -> dict[str, float]:
    """Train `policy` in place; `rewards[i]` holds one reward for each step of `scored[i]`.

    Killed after some optimiser step and called again with the same arguments and the same initial
    policy, it continues and ends with the same weights. Returns a summary of what was trained on.
    Raises DataError if nothing is left to train on, ValidationFailed where the engine sampled from another
    distribution than this policy's, StepToolError where a loss is not finite.
    """
    found = [episode(item, reward) for item, reward in zip(scored, rewards, strict=True)]
    episodes = [item for item in found if item is not None]
    counts = {"trajectories": len(scored), "skipped_empty": len(found) - len(episodes)}
    if greedy := next((item for item in episodes if item.temperature == 0), None):
        raise DataError(
            "was sampled at temperature 0, so no probability ratio exists",
            where=f"trajectory {greedy.trajectory_id}",
            fix="set sample.temperature above 0 and sample again",
        )
    if params.baseline != "critic":
        episodes, skipped = comparable(episodes, params)
        counts |= skipped
    if not episodes:
        raise DataError(
            "no trajectory carries a signal to train on",
            fix="sample more tasks or attempts (sample.tasks, sample.attempts), or set train.baseline to critic",
        )
    batch = pack(episodes, params.row_tokens)
    lower = LowerCache(policy)
    run = Run(
        epochs=params.epochs,
        minibatches=params.minibatches,
        max_grad_norm=params.max_grad_norm,
        seed=seed,
        fingerprint=fingerprint("ppo", policy, episodes, params, seed),
        on_metrics=on_metrics,
        checkpoint_dir=checkpoint_dir,
    )
    snapshot = run.resume()
    measured = snapshot.part("measured") if snapshot else prepare(policy, batch, params, lower)
    check_engine(batch, measured["old_logprobs"], params)
    objective = PpoObjective.create(policy.value_head, batch, params, measured)
    optimise(policy, batch, objective, optimizer(policy, params), run, lower, measured=measured, snapshot=snapshot)
    return {**counts, "tasks": len(batch.groups), "rows": len(batch.rows), **summary(batch, measured)}


def optimizer(policy: PolicyWithValue, params: TrainParams) -> torch.optim.Optimizer:
    heads = {"params": list(policy.value_head.parameters()), "lr": params.value_learning_rate}
    return torch.optim.AdamW([*adapter_groups(policy, params.learning_rate, params), heads], weight_decay=0.0)


@dataclass
class PpoObjective:
    """Clipped surrogate, value loss and, if asked for, a KL term; tensors are [N] where nothing else is said."""

    head: ValueHead
    params: TrainParams
    weights: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    importance: Tensor
    targets: Tensor | None
    states: Tensor | None
    """1 where the value is trained: every token, or the first of each step."""
    reference_features: Tensor | None
    diverged: str = (
        "lower train.learning_rate, then run the same command again; if it stays, look at that trajectory's rewards"
    )

    @classmethod
    def create(cls, head: ValueHead, batch: Batch, params: TrainParams, measured: dict[str, Tensor]) -> PpoObjective:
        weights = batch.weights(by_step=params.credit == "step")
        advantages = measured["advantages"]
        return cls(
            head=head,
            params=params,
            weights=weights,
            old_logprobs=measured["old_logprobs"],
            # What `branches` gives has mean 0 as it is; with a step's weights a shift would push every other token.
            advantages=whiten(advantages, weights, centre=params.credit == "token" or params.baseline != "branches")
            if params.whiten
            else advantages,
            importance=losses.importance_weights(
                measured["old_logprobs"], batch.engine_logprobs(), params.importance_cap
            ),
            targets=measured.get("targets"),
            states=measured.get("states"),
            reference_features=measured.get("reference_features"),
        )

    def loss(self, row: Row, output: Output, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
        def of(flat: Tensor) -> Tensor:
            return flat[row.tokens].to(output.logprobs.device)

        p, weights = self.params, of(self.weights)
        loss, stats = losses.policy_loss(
            output.logprobs,
            of(self.old_logprobs),
            of(self.advantages),
            of(self.importance),
            weights,
            denominator,
            losses.Clip(p.clip_low, p.clip_high, p.dual_clip),
        )
        stats["policy_loss"] = loss.detach()
        if output.divergence is not None:
            kl = losses.weighted_mean(output.divergence, weights, denominator)
            stats[f"kl_to_{p.kl_to}"] = kl.detach()
            loss = loss + p.kl_coef * kl
        if self.targets is not None and self.states is not None:
            values, targets, states = self.head(output.features), of(self.targets), of(self.states)
            value_loss = losses.value_loss(values, targets, states, denominator)
            loss = loss + p.value_coef * value_loss
            stats["value_loss"] = value_loss.detach()
            error = targets - values.detach()
            for name, x in {"error": error, "target": targets}.items():
                stats[f"{name}.1"] = losses.weighted_mean(x, states, denominator)
                stats[f"{name}.2"] = losses.weighted_mean(x.square(), states, denominator)
        return loss, stats

    def metrics(self, sums: dict[str, float]) -> dict[str, float]:
        """The sums as they are, and the explained variance from the moments among them."""
        metrics = {name: value for name, value in sums.items() if "." not in name}
        if "target.1" in sums:
            unexplained, spread = (sums[f"{x}.2"] - sums[f"{x}.1"] ** 2 for x in ("error", "target"))
            metrics["explained_variance"] = 1 - unexplained / spread if spread > 0 else 0.0
        return metrics


def engine_kl(batch: Batch, old_logprobs: Tensor) -> float:
    """Divergence of this policy from the distribution that the engine sampled from, estimated from its samples (k3)."""
    gap = (batch.engine_logprobs() - old_logprobs).clamp(-20, 20)
    return float((gap.neg().expm1() + gap).mean())


def check_engine(batch: Batch, old_logprobs: Tensor, params: TrainParams) -> None:
    """Raise ValidationFailed where `engine_kl` is above train.max_engine_kl."""
    found = engine_kl(batch, old_logprobs)
    if not found <= params.max_engine_kl:
        raise ValidationFailed(
            f"engine_kl is {found:.3g}, above train.max_engine_kl = {params.max_engine_kl:g}: the engine sampled from "
            "another distribution than the policy that is trained, and no step was taken",
            fix="set sample.top_p: 1.0 and model.dtype: float32, then run `dvc repro`, which samples again; if it "
            "stays, vLLM and Transformers disagree about this architecture: set model.base to another model",
        )


def summary(batch: Batch, measured: dict[str, Tensor]) -> dict[str, float]:
    """What the batch was like before training."""
    result = {
        "tokens": float(batch.tokens),
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


def advantage_by_step(batch: Batch, advantages: Tensor) -> dict[str, float]:
    """Mean size of the advantages of the first, second, … step's tokens, before whitening: how much is decided there.

    Their mean says nothing: over siblings that share a history it is 0.
    """
    steps = torch.cat([batch.step_ids(i) for i in range(len(batch.episodes))])
    return {f"advantage_step_{k + 1}": float(advantages[steps == k].abs().mean()) for k in range(int(steps.max()) + 1)}

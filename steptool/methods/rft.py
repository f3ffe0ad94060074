"""Rejection-sampling fine-tuning (arXiv 2308.01825): likelihood of the action tokens of solved trajectories.

The arm to compare PPO with: same packing, adapter, optimiser steps and checkpoints, no rewards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from steptool.config.settings import RftParams, TrainParams
from steptool.core.errors import DataError
from steptool.core.types import ScoredTrajectory
from steptool.training.batch import Row, episode, pack
from steptool.training.losses import weighted_mean
from steptool.training.model import Output, PolicyWithValue, adapter_groups
from steptool.training.trainer import LowerCache, OnMetrics, Run, fingerprint, optimise


@dataclass
class LikelihoodObjective:
    """Mean negative log-likelihood of the sampled tokens."""

    weights: Tensor
    reference_features: Tensor | None = None
    diverged: str = "lower rft.learning_rate, then run the same command again"

    def loss(self, row: Row, output: Output, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
        weights = self.weights[row.tokens].to(output.logprobs.device)
        loss = -weighted_mean(output.logprobs, weights, denominator)
        return loss, {"loss": loss.detach(), "entropy": weighted_mean(output.entropy, weights, denominator)}

    def metrics(self, sums: dict[str, float]) -> dict[str, float]:
        return sums


def train_rft(
    policy: PolicyWithValue,
    scored: Sequence[ScoredTrajectory],
    params: RftParams,
    train: TrainParams,
    *,
    seed: int,
    on_metrics: OnMetrics = lambda step, metrics: None,
    checkpoint_dir: Path | None = None,
) -> dict[str, float]:
    """Train `policy` in place on the trajectories with solved = 1; resumes like `train_ppo`.

    Raises DataError if none is solved.
    """
    found = (episode(item, [0.0] * len(item.judgements)) for item in scored if item.solved == 1)
    # A likelihood is the model's own: the temperature of sampling has no part in it.
    episodes = [replace(item, temperature=1.0) for item in found if item is not None]
    if not episodes:
        raise DataError(
            f"none of {len(scored)} trajectories is solved",
            fix="sample more (sample.tasks, sample.attempts), or start from a policy that solves some",
        )
    batch = pack(episodes, train.row_tokens)
    run = Run(
        epochs=params.epochs,
        minibatches=train.minibatches,
        max_grad_norm=train.max_grad_norm,
        seed=seed,
        fingerprint=fingerprint("rft", policy, episodes, (params, train), seed),
        on_metrics=on_metrics,
        checkpoint_dir=checkpoint_dir,
    )
    adam = torch.optim.AdamW(adapter_groups(policy, params.learning_rate, train), weight_decay=0.0)
    objective = LikelihoodObjective(batch.weights(by_step=False))
    history = optimise(policy, batch, objective, adam, run, LowerCache(policy), snapshot=run.resume())
    return {
        "trajectories": len(scored),
        "solved": len(episodes),
        "rows": len(batch.rows),
        "tokens": batch.tokens,
        "loss_first": history[0]["loss"],
        "loss_last": history[-1]["loss"],
    }

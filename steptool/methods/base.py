"""The protocol of training methods, and the base class of those that train an adapter.

    class Dpo(AdapterMethod):
        class Config(AdapterMethod.Config):       methods: {dpo: {use: 'my_pkg.dpo:Dpo', beta: 0.2}}
            beta: Bound = 0.1
        config: Config
        needs = frozenset({"scored"})

        def examples(self, data): ...             select   which trajectories, as token streams; what must share a row
        def prepare(self, policy, batch, ...)     measure  what stays fixed while the policy changes, and the credit
        def objective(self, policy, batch, ...)   the loss of one packed row

`AdapterMethod.train` packs rows, takes the optimiser steps, writes checkpoints and saves the policy. A method that
trains in another way (`steptool.methods.sft`) writes its own `train`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from steptool.core.fields import Bound, Many, Rate
from steptool.core.plugins import modules_of
from steptool.core.revision import MEANS_NOTHING, code_revision
from steptool.policies.canary import candidates, write_canary
from steptool.training.batch import Batch, pack
from steptool.training.checkpoint import fingerprint_of
from steptool.training.episode import Episode
from steptool.training.job import Data, Job
from steptool.training.model import AdapterSettings, PolicyWithValue, adapter_groups
from steptool.training.trainer import LowerCache, Objective, Run, optimise

Measured = dict[str, Tensor]
"""Tensors by name. Every checkpoint holds them, because they cannot be measured again once the policy has changed."""


class Method(Protocol):
    needs: ClassVar[frozenset[str]]
    """Which of `demonstrations`, `scored` and `sampled` the data of an arm must hold: a round of attempts gives
    `scored`, and `sampled` unless it is imported from traces."""

    def train(self, job: Job) -> dict[str, float]:
        """Train the policy of folder `job.start` into folder `job.out`; returns a summary."""
        ...


@dataclass(frozen=True)
class Examples:
    """What is trained on."""

    episodes: Sequence[Episode]
    counts: Mapping[str, float]
    """How many trajectories there were, and how many were left out for which reason: part of the summary."""
    together: Sequence[Sequence[int]] | None = None
    """Indices of the episodes that one row must hold, such as the two of a pair; None: each stands alone."""


class AdapterMethod(ABC):
    """A method that trains an adapter over packed rows."""

    class Config(AdapterSettings):
        learning_rate: Rate = 1e-3
        """At first; it falls linearly over the optimiser steps."""
        epochs: Many = 1
        minibatches: Many = 16
        """Optimiser steps an epoch."""
        max_grad_norm: Bound = 1.0

    needs: ClassVar[frozenset[str]]
    config: Config

    def __init__(self, config: Config) -> None:
        self.config = config

    @abstractmethod
    def examples(self, data: Data) -> Examples:
        """Select and pair the trajectories. Without any episode the policy stays as it is; raise DataError if that is
        an error."""

    def prepare(self, policy: PolicyWithValue, batch: Batch, lower: LowerCache, data: Data) -> Measured:
        """What the objective keeps fixed. Measured before the first optimiser step."""
        return {}

    @abstractmethod
    def objective(self, policy: PolicyWithValue, batch: Batch, measured: Measured) -> Objective: ...

    def optimizer(self, policy: PolicyWithValue) -> torch.optim.Optimizer:
        return torch.optim.AdamW(adapter_groups(policy, self.config.learning_rate, self.config), weight_decay=0.0)

    def summary(self, batch: Batch, measured: Measured, history: Sequence[dict[str, float]]) -> dict[str, float]:
        """More numbers for the summary. `history` holds the metrics of the optimiser steps."""
        return {}

    def train(self, job: Job) -> dict[str, float]:
        """Load, `fit`, save with a canary. Raises ModelError for a folder that is no policy or does not fit."""
        policy = PolicyWithValue.load(job.start, self.config, dtype=job.dtype, seed=job.seed)
        streams = candidates(job.data.streams())
        before = policy.logprobs(streams)
        summary = self.fit(policy, job)
        policy.save(job.out)
        write_canary(job.out, streams, before, policy.logprobs(streams), job.dtype)
        return summary

    def fit(self, policy: PolicyWithValue, job: Job) -> dict[str, float]:
        """Train `policy` in place.

        If it was killed and is called again with the same job and the same initial policy, it continues after the last
        optimiser step and ends with the same weights. Raises what `examples` and `prepare` raise, and StepToolError
        where a loss is not finite.
        """
        examples = self.examples(job.data)
        if not examples.episodes:
            return dict(examples.counts)
        batch = pack(examples.episodes, job.row_tokens, examples.together)
        lower = LowerCache(policy)
        run = self._run(job, self._fingerprint(policy, batch, job))
        snapshot = run.resume()
        measured = snapshot.part("measured") if snapshot else self.prepare(policy, batch, lower, job.data)
        objective, optimizer = self.objective(policy, batch, measured), self.optimizer(policy)
        history = optimise(policy, batch, objective, optimizer, run, lower, measured=measured, snapshot=snapshot)
        counts = {**examples.counts, "tasks": len(batch.groups), "rows": len(batch.rows), "tokens": batch.tokens}
        return {**counts, **self.summary(batch, measured, history)}

    def _run(self, job: Job, fingerprint: str) -> Run:
        return Run(
            epochs=self.config.epochs,
            minibatches=self.config.minibatches,
            max_grad_norm=self.config.max_grad_norm,
            seed=job.seed,
            fingerprint=fingerprint,
            on_metrics=job.on_metrics,
            checkpoint_dir=job.checkpoint_dir,
        )

    def _fingerprint(self, policy: PolicyWithValue, batch: Batch, job: Job) -> str:
        """Identifies a training: the same code of the method, settings, start, data, rewards and seed."""
        weights = hashlib.sha256()
        for parameter in policy.trainable().values():
            weights.update(parameter.detach().cpu().numpy().tobytes())
        data = [(item.trajectory_id, item.rewards) for item in batch.episodes]
        return fingerprint_of(
            code=code_revision([__name__, *modules_of(type(self), self.config)], without=MEANS_NOTHING),
            settings=self.config.model_dump(mode="json"),
            start=weights.hexdigest(),
            data=[data, batch.units, job.data.reward.gamma],
            seed=job.seed,
        )

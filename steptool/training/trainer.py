"""The optimisation loop of every method that trains an adapter.

    for each epoch: shuffle the tasks, deal their attempts into minibatches
        for each minibatch: pack it into rows, add up the gradients of all its rows, then one optimiser step

The learning rate falls linearly from its setting towards 0 over these steps: a training has a few dozen noisy steps,
and its result should not depend on the last one.

An objective scores one row; its terms are divided by the minibatch's total weight, so how rows are cut
into micro-batches changes nothing. A run that was killed continues from the last optimiser step.
"""

from __future__ import annotations

import bisect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from steptool.core.errors import StepToolError
from steptool.system.progress import progress
from steptool.training.batch import Batch, Row
from steptool.training.checkpoint import (
    Snapshot,
    load_snapshot,
    optimizer_tensors,
    restore_optimizer,
    save_snapshot,
)
from steptool.training.job import OnMetrics
from steptool.training.model import Output, PolicyWithValue


class Objective(ABC):
    weights: Tensor
    """[N] how much each sampled token counts; their sum over a minibatch is the denominator of its loss. For a mean
    over pairs, those of the tokens of a pair sum to 1."""
    reference_features: Tensor | None = None
    """[N, hidden] features of the policy that training stays close to, if the objective measures the divergence from
    it."""
    diverged: str = "lower the learning_rate of the arm's method, then run the same command again"
    """What to do about a loss that is not finite."""

    @abstractmethod
    def loss(self, row: Row, output: Output, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a row, and statistics, both additive over the rows of a minibatch."""

    def metrics(self, sums: dict[str, float]) -> dict[str, float]:
        """What to log, from the statistics added up over a minibatch."""
        return sums


@dataclass
class LowerCache:
    """Output of the frozen lower layers, computed once a prefix tree and kept in main memory.

    A tree is the same in every row, so later epochs find its output here.
    """

    policy: PolicyWithValue
    kept: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    def __call__(self, row: Row) -> Tensor:
        """[1, L, hidden] entering the first layer that trains."""
        if not all(members in self.kept for members, _ in row.trees):
            whole = self.policy.lower(row).cpu()
            for members, place in row.trees:
                self.kept[members] = whole[:, place].clone() if len(row.trees) > 1 else whole
        return torch.cat([self.kept[members] for members, _ in row.trees], dim=1)


@dataclass
class Run:
    """How to optimise, and where to keep the state."""

    epochs: int
    minibatches: int
    max_grad_norm: float
    seed: int
    fingerprint: str
    on_metrics: OnMetrics
    checkpoint_dir: Path | None

    def resume(self) -> Snapshot | None:
        return load_snapshot(self.checkpoint_dir, self.fingerprint) if self.checkpoint_dir else None


def minibatches(batch: Batch, count: int, seed: int, epoch: int) -> list[tuple[Row, ...]]:
    """The rows of at most `count` minibatches of near-equal numbers of tasks, which (seed, epoch) shuffle."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(batch.groups), generator=generator).tolist()
    count = min(count, len(batch.groups))
    return [batch.rows_of([batch.groups[i] for i in order[part::count]]) for part in range(count)]


def optimise(
    policy: PolicyWithValue,
    batch: Batch,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    run: Run,
    lower: LowerCache,
    *,
    measured: dict[str, Tensor] | None = None,
    snapshot: Snapshot | None = None,
) -> list[dict[str, float]]:
    """Train; returns the metrics of every optimiser step, those before a resumption included.

    `measured` goes into each checkpoint: a resumed run could not measure it again, because the policy has changed.
    Raises StepToolError naming the trajectory where the loss is not finite.
    """
    names = policy.trainable()
    history: list[dict[str, float]] = []
    if snapshot is not None:
        restore(policy, optimizer, snapshot)
        for metrics in snapshot.metrics:
            history.append(metrics)
            run.on_metrics(len(history), metrics)
    parts = [part for epoch in range(run.epochs) for part in minibatches(batch, run.minibatches, run.seed, epoch)]
    rates = [group["lr"] for group in optimizer.param_groups]
    with progress("train", sum(map(len, parts)), "rows") as advance:
        advance(sum(map(len, parts[: len(history)])))
        for part in parts[len(history) :]:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1 - len(history) / len(parts))
            sums = accumulate(policy, batch, objective, part, lower, advance)
            norm = torch.nn.utils.clip_grad_norm_(list(policy.policy_parameters().values()), run.max_grad_norm)
            if not norm.isfinite():
                where = f"optimiser step {len(history) + 1}"
                raise StepToolError("the gradient is not finite", where=where, fix=objective.diverged)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            history.append({**objective.metrics(sums), "grad_norm": float(norm)})
            run.on_metrics(len(history), history[-1])
            if run.checkpoint_dir is not None:
                tensors: dict[str, Tensor] = {f"weights.{name}": p for name, p in names.items()}
                tensors |= {f"optimizer.{k}": v for k, v in optimizer_tensors(optimizer, names).items()}
                tensors |= {f"measured.{name}": value for name, value in (measured or {}).items()}
                save_snapshot(run.checkpoint_dir, run.fingerprint, Snapshot(len(history), history, tensors))
    return history


def accumulate(
    policy: PolicyWithValue,
    batch: Batch,
    objective: Objective,
    rows: Sequence[Row],
    lower: LowerCache,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, float]:
    """Add the gradients of one optimiser step's rows; returns the statistics added up."""
    denominator = float(sum(objective.weights[row.tokens].sum() for row in rows))
    sums: dict[str, float] = {}
    for row in rows:
        reference = objective.reference_features
        output = policy.upper(row, lower(row), reference_features=None if reference is None else reference[row.tokens])
        loss, stats = objective.loss(row, output, denominator)
        if not loss.isfinite():
            where = _culprits(batch, row, output.logprobs)
            raise StepToolError("the loss is not finite", where=where, fix=objective.diverged)
        loss.backward()
        for name, value in stats.items():
            sums[name] = sums.get(name, 0.0) + float(value)
        advance(1)
    return sums


def _culprits(batch: Batch, row: Row, logprobs: Tensor) -> str:
    """The trajectories of a row with a log-probability that is not finite, or else all of them."""
    bad = set(row.tokens[~logprobs.detach().cpu().isfinite()].tolist())
    names = {i: batch.episodes[i].trajectory_id for i in row.episodes}
    hit = [name for i, name in names.items() if bad.intersection(range(batch.starts[i], batch.starts[i + 1]))]
    return "trajectory " + ", ".join(hit or names.values())


def require_finite(batch: Batch, flat: Tensor, found: str, fix: str) -> None:
    """Raise StepToolError naming the first trajectory where `flat` [N] is not finite."""
    bad = (~flat.isfinite()).nonzero()
    if len(bad):
        index = bisect.bisect_right(batch.starts, int(bad[0])) - 1
        raise StepToolError(found, where=f"trajectory {batch.episodes[index].trajectory_id}", fix=fix)


def restore(policy: PolicyWithValue, optimizer: torch.optim.Optimizer, snapshot: Snapshot) -> None:
    names: dict[str, nn.Parameter] = policy.trainable()
    with torch.no_grad():
        for name, value in snapshot.part("weights").items():
            names[name].copy_(value)
    restore_optimizer(optimizer, names, snapshot.part("optimizer"))

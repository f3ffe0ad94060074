"""Step-grained PPO on scored trajectories (StepTool, arXiv 2410.07745).

    1  measure     one pass without gradient: log pi_old, hidden states, log pi_ref if a KL is asked for
    2  value head  fitted to the empirical returns on those hidden states: no further pass
    3  advantages  token form, step form, or against the other attempts at the task; whitened over all
    4  optimise    `epochs` x `minibatches` optimiser steps of the clipped surrogate

What was sampled is what is trained on: token ids and log-probabilities come from the engine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from steptool.errors import DataError
from steptool.params import TrainParams
from steptool.progress import progress
from steptool.training import losses
from steptool.training.advantages import Discounts, leave_one_out, penalised, step_bounds, step_gae, token_gae, whiten
from steptool.training.batch import Batch, Episode, Row, episode, pack
from steptool.training.loop import LowerCache, OnMetrics, Run, fingerprint, optimise, require_finite
from steptool.training.model import Output, PolicyWithValue, ValueHead
from steptool.types import ScoredTrajectory


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
    Raises DataError if nothing is left to train on, StepToolError where a loss is not finite.
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
    if params.baseline == "attempts":
        episodes, skipped = comparable(episodes, params.gamma_step)
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
    objective = PpoObjective.create(policy.value_head, batch, params, measured)
    optimise(policy, batch, objective, optimizer(policy, params), run, lower, measured=measured, snapshot=snapshot)
    return {**counts, "rows": len(batch.rows), **summary(batch, measured)}


def optimizer(policy: PolicyWithValue, params: TrainParams) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        [
            {"params": list(policy.policy_parameters().values()), "lr": params.learning_rate},
            {"params": list(policy.value_head.parameters()), "lr": params.value_learning_rate},
        ],
        weight_decay=0.0,
    )


def comparable(episodes: Sequence[Episode], gamma: float) -> tuple[list[Episode], dict[str, int]]:
    """The episodes that the other attempts at their task say something about.

    Left out and counted: truncated attempts (without a critic their return is not known), an attempt
    without a sibling, and all attempts at a task where they ended alike, so that every advantage is 0.
    """
    by_task: dict[str, list[Episode]] = defaultdict(list)
    for item in episodes:
        if not item.truncated:
            by_task[item.task_id].append(item)
    kept: list[Episode] = []
    skipped = {"skipped_truncated": sum(item.truncated for item in episodes), "skipped_alone": 0, "skipped_alike": 0}
    for attempts in by_task.values():
        if len(attempts) < 2:
            skipped["skipped_alone"] += 1
        elif all(abs(a) < 1e-9 for each in leave_one_out([item.rewards for item in attempts], gamma) for a in each):
            skipped["skipped_alike"] += len(attempts)
        else:
            kept += attempts
    return kept, skipped


def against_siblings(batch: Batch, penalties: Tensor, gamma: float) -> Tensor:
    """[N] leave-one-out advantages, the same for all tokens of a step. `penalties` [N] reduce the rewards."""
    by_task: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(batch.episodes):
        by_task[item.task_id].append(index)
    advantages = torch.zeros(batch.tokens)
    for members in by_task.values():
        rewards = []
        for index in members:
            item = batch.episodes[index]
            bounds = step_bounds(batch.step_ids(index), len(item.rewards))
            rewards.append(penalised(item.rewards, bounds, penalties[batch.tokens_of(index)]))
        for index, values in zip(members, leave_one_out(rewards, gamma), strict=True):
            advantages[batch.tokens_of(index)] = torch.tensor(values)[batch.step_ids(index)]
    return advantages


class Measurement(NamedTuple):
    """Of the policy before training: [N], [N], [N, hidden], [E, hidden] and [N] or None."""

    logprobs: Tensor
    entropy: Tensor
    features: Tensor
    end_features: Tensor
    reference: Tensor | None


@torch.no_grad()
def measure(policy: PolicyWithValue, batch: Batch, lower: LowerCache, *, reference: bool) -> Measurement:
    """One pass over all rows."""
    logprobs, entropy, reference_logprobs = (torch.zeros(batch.tokens) for _ in range(3))
    hidden = policy.value_head.linear.in_features
    features, ends = torch.zeros(batch.tokens, hidden), torch.zeros(len(batch.episodes), hidden)
    with progress("measure", len(batch.rows), "rows") as advance:
        for row in batch.rows:
            output = policy.upper(row, lower(row))
            logprobs[row.tokens] = output.logprobs.cpu()
            entropy[row.tokens] = output.entropy.cpu()
            features[row.tokens] = output.features.cpu()
            ends[list(row.episodes)] = output.end_features.cpu()
            if reference:
                reference_logprobs[row.tokens] = policy.upper(row, lower(row), reference=True).logprobs.cpu()
            advance(1)
    require_finite(batch, logprobs, "the policy gives a sampled token probability 0", "start from a sound policy")
    return Measurement(logprobs, entropy, features, ends, reference_logprobs if reference else None)


def prepare(policy: PolicyWithValue, batch: Batch, params: TrainParams, lower: LowerCache) -> dict[str, Tensor]:
    """Steps 1 to 3: everything that the objective holds fixed, as flat tensors."""
    before = measure(policy, batch, lower, reference=params.kl_in != "none")
    fixed = {"old_logprobs": before.logprobs, "entropy": before.entropy}
    penalties = torch.zeros(batch.tokens)
    if before.reference is not None:
        fixed["reference"] = before.reference
        if params.kl_in == "reward":
            penalties = params.kl_coef * losses.kl_k1(before.logprobs, before.reference, params.kl_clamp)
    if params.baseline == "attempts":
        fixed["advantages"] = against_siblings(batch, penalties, params.gamma_step)
    else:
        fixed |= critic_credit(policy.value_head, batch, params, before, penalties)
    require_finite(batch, fixed["advantages"], "its advantages are not finite", "look at its rewards")
    return fixed


def critic_credit(
    head: ValueHead, batch: Batch, params: TrainParams, before: Measurement, penalties: Tensor
) -> dict[str, Tensor]:
    """Fit the value head, then GAE with it."""
    device = head.linear.weight.device
    features, end_features = before.features.to(device), before.end_features.to(device)
    states = batch.first_tokens() if params.credit == "step" else torch.ones(batch.tokens)
    nothing, no_ends = torch.zeros(batch.tokens), torch.zeros(len(batch.episodes))
    returns = assign_credit(batch, params, nothing, no_ends, penalties, trace=1.0).targets
    known = torch.cat([torch.full((len(e.predict),), float(not e.truncated)) for e in batch.episodes])
    fit_value_head(head, features, returns.to(device), (states * known).to(device), params)
    with torch.no_grad():
        values, ends = head(features).cpu(), head(end_features).cpu()
    credit = assign_credit(batch, params, values, ends, penalties)
    return {**credit._asdict(), "states": states, "values": values, "returns": returns}


class FlatCredit(NamedTuple):
    advantages: Tensor
    targets: Tensor


def assign_credit(
    batch: Batch, params: TrainParams, values: Tensor, ends: Tensor, penalties: Tensor, *, trace: float | None = None
) -> FlatCredit:
    """Advantages and value targets [N] of all trajectories, not whitened; `trace` overrides both lambdas."""
    estimate = token_gae if params.credit == "token" else step_gae
    lambdas = (params.lambda_step, params.lambda_token) if trace is None else (trace, trace)
    discounts = Discounts(params.gamma_step, lambdas[0], params.gamma_token, lambdas[1])
    parts = [
        estimate(
            item.rewards,
            values[batch.tokens_of(i)],
            batch.step_ids(i),
            discounts,
            bootstrap=float(ends[i]) if item.truncated else 0.0,
            penalties=penalties[batch.tokens_of(i)],
        )
        for i, item in enumerate(batch.episodes)
    ]
    return FlatCredit(torch.cat([p.advantages for p in parts]).float(), torch.cat([p.targets for p in parts]).float())


def fit_value_head(head: ValueHead, features: Tensor, returns: Tensor, weights: Tensor, params: TrainParams) -> None:
    """`value_warmup` full-batch steps towards the returns; a fresh head starts at their mean.

    Few on purpose: a head that has learned these returns by heart leaves no advantage.
    """
    total = weights.sum()
    if total == 0:
        return
    if not head.linear.weight.any():
        with torch.no_grad():
            head.linear.bias.fill_(float((weights * returns).sum() / total))
    adam = torch.optim.Adam(head.parameters(), lr=params.value_learning_rate)
    for _ in range(params.value_warmup):
        adam.zero_grad()
        losses.value_loss(head(features), returns, weights, total).backward()
        adam.step()
    adam.zero_grad()


@dataclass
class PpoObjective:
    """Clipped surrogate, value loss and, if asked for, a KL term; all tensors [N]."""

    head: ValueHead
    params: TrainParams
    weights: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    importance: Tensor
    targets: Tensor | None
    states: Tensor | None
    """1 where the value is trained: every token, or the first of each step."""
    reference: Tensor | None

    @classmethod
    def create(cls, head: ValueHead, batch: Batch, params: TrainParams, measured: dict[str, Tensor]) -> PpoObjective:
        weights = batch.weights(by_step=params.credit == "step")
        advantages = measured["advantages"]
        return cls(
            head=head,
            params=params,
            weights=weights,
            old_logprobs=measured["old_logprobs"],
            advantages=whiten(advantages, weights) if params.whiten else advantages,
            importance=losses.importance_weights(
                measured["old_logprobs"], batch.engine_logprobs(), params.importance_cap
            ),
            targets=measured.get("targets"),
            states=measured.get("states"),
            reference=measured.get("reference"),
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
        if self.reference is not None:
            k3 = losses.kl_k3(output.logprobs, of(self.reference), p.kl_clamp)
            kl = losses.weighted_mean(k3, weights, denominator)
            stats["kl_to_reference"] = kl.detach()
            if p.kl_in == "loss":
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


def summary(batch: Batch, measured: dict[str, Tensor]) -> dict[str, float]:
    """What the batch was like before training."""
    old, mu = measured["old_logprobs"], batch.engine_logprobs()
    gap = (mu - old).clamp(-20, 20)
    result = {
        "tokens": float(batch.tokens),
        "entropy": float(measured["entropy"].mean()),
        "engine_kl": float((gap.neg().exp() - 1 + gap).mean()),
        "reward_mean": sum(sum(e.rewards) for e in batch.episodes) / len(batch.episodes),
        "advantage_std": float(measured["advantages"].std(correction=0)),
    }
    if "returns" in measured:
        result["value_explained_variance"] = losses.explained_variance(
            measured["values"], measured["returns"], measured["states"]
        )
    return result

"""What PPO holds fixed while it optimises: old log-probabilities, values, advantages.

1  measure     one pass without gradient: log pi_old, hidden states, log pi_ref if a KL is asked for
2  value head  fitted to the empirical returns on those hidden states: no further pass
3  advantages  token form, step form, or against the other attempts at the task
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from steptool.config.settings import TrainParams
from steptool.system.progress import progress
from steptool.training import losses
from steptool.training.batch import Batch, Episode
from steptool.training.credit import (
    Discounts,
    leave_one_out,
    penalised,
    returns_to_go,
    step_bounds,
    step_gae,
    token_gae,
    where_attempts_part,
)
from steptool.training.model import PolicyWithValue, ValueHead
from steptool.training.trainer import LowerCache, require_finite


def compared(episodes: Sequence[Episode], rewards: Sequence[Sequence[float]], params: TrainParams) -> list[list[float]]:
    """Token advantages of the attempts at one task against each other, from their lambda-returns

        G_k = sum_l (gamma lambda)^l r_{k+l}

    which is GAE with V = 0, and for rewards shaped by a potential (`form: potential`) GAE of the plain rewards with
    that potential as the critic (arXiv cs/1106.5267). At lambda = 1 the potential cancels where histories are equal
    (`branches`): how attempts ended counts, and the costs. Below, what a call earned counts by itself, with less
    variance and the bias of a critic that takes every useful call for progress.
    """
    decay = params.gamma_step * params.lambda_step
    if params.baseline == "branches":
        returns = [returns_to_go(attempt, decay) for attempt in rewards]
        return where_attempts_part(
            [item.histories for item in episodes],
            [item.targets for item in episodes],
            [[own[step] for step in item.step_ids] for item, own in zip(episodes, returns, strict=True)],
        )
    by_step = leave_one_out(rewards, decay)
    return [[own[step] for step in item.step_ids] for item, own in zip(episodes, by_step, strict=True)]


def comparable(episodes: Sequence[Episode], params: TrainParams) -> tuple[list[Episode], dict[str, int]]:
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
        elif all(abs(a) < 1e-9 for each in compared(attempts, [e.rewards for e in attempts], params) for a in each):
            skipped["skipped_alike"] += len(attempts)
        else:
            kept += attempts
    return kept, skipped


def against_siblings(batch: Batch, penalties: Tensor, params: TrainParams) -> Tensor:
    """[N] advantages over the siblings. `penalties` [N] reduce the rewards."""
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
        advantages_of = compared([batch.episodes[index] for index in members], rewards, params)
        for index, values in zip(members, advantages_of, strict=True):
            advantages[batch.tokens_of(index)] = torch.tensor(values)
    return advantages


class Measurement(NamedTuple):
    """Of the policy before training: [N], [N], [N, hidden], [E, hidden]; of the reference: [N], [N, hidden] or None."""

    logprobs: Tensor
    entropy: Tensor
    features: Tensor
    end_features: Tensor
    reference: Tensor | None
    reference_features: Tensor | None


@torch.no_grad()
def measure(policy: PolicyWithValue, batch: Batch, lower: LowerCache, *, reference: bool) -> Measurement:
    """One pass over all rows."""
    logprobs, entropy = torch.zeros(batch.tokens), torch.zeros(batch.tokens)
    hidden = policy.value_head.linear.in_features
    features, ends = torch.zeros(batch.tokens, hidden), torch.zeros(len(batch.episodes), hidden)
    theirs = (torch.zeros(batch.tokens), torch.zeros(batch.tokens, hidden)) if reference else (None, None)
    reference_logprobs, reference_features = theirs
    with progress("measure", len(batch.rows), "rows") as advance:
        for row in batch.rows:
            output = policy.upper(row, lower(row))
            logprobs[row.tokens] = output.logprobs.cpu()
            entropy[row.tokens] = output.entropy.cpu()
            features[row.tokens] = output.features.cpu()
            ends[list(row.episodes)] = output.end_features.cpu()
            if reference_logprobs is not None and reference_features is not None:
                output = policy.upper(row, lower(row), reference=True)
                reference_logprobs[row.tokens] = output.logprobs.cpu()
                reference_features[row.tokens] = output.features.cpu()
            advance(1)
    require_finite(batch, logprobs, "the policy gives a sampled token probability 0", "start from a sound policy")
    return Measurement(logprobs, entropy, features, ends, reference_logprobs, reference_features)


def prepare(policy: PolicyWithValue, batch: Batch, params: TrainParams, lower: LowerCache) -> dict[str, Tensor]:
    """Steps 1 to 3: everything that the objective holds fixed, as flat tensors."""
    before = measure(policy, batch, lower, reference=params.kl_in != "none" and params.kl_to == "reference")
    fixed = {"old_logprobs": before.logprobs, "entropy": before.entropy}
    penalties = torch.zeros(batch.tokens)
    if params.kl_in == "reward" and before.reference is not None:
        penalties = params.kl_coef * losses.kl_k1(before.logprobs, before.reference, params.kl_clamp)
    if params.kl_in == "loss":
        anchor = before.features if before.reference_features is None else before.reference_features
        fixed["reference_features"] = anchor
    if params.baseline != "critic":
        fixed["advantages"] = against_siblings(batch, penalties, params)
    else:
        fixed |= critic_credit(policy.value_head, batch, params, before, penalties)
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

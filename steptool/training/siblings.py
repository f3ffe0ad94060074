"""Credit without a critic: the attempts at one task are compared with each other. Pure functions on lists of numbers.

attempts   a b c   return 1        a is taken by both: nobody is better        0
           a d     return 0        after a, b stands against d                 +1 and -1

Values on the tree of a task's attempts are those of RTMC (arXiv 2604.11037), which smooths them by visits; GAGPO
(2605.13217) and GraphGPO (2605.26684) compare wherever states are equal, and not only where all tokens are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Literal, Self

from pydantic import model_validator

from steptool.core.fields import Fraction, Settings, Weight
from steptool.training.episode import Episode


class Comparison(Settings):
    """The settings of a method that say what an action is compared with."""

    baseline: Literal["branches", "attempts", "critic"] = "branches"
    """The other attempts at the task, where their tokens first differ (branches) or at the same step (attempts); or a
    value head (critic)."""
    lambda_step: Fraction = 0.9
    """Lambda of GAE, and of the returns by which attempts are compared. At 1, what a potential pays for calls
    cancels with `branches`. 0.9 was chosen by `benchmarks/credit.py` on training tasks."""
    merge: Literal["tokens", "state"] = "tokens"
    """Where `branches` are compared: after the same tokens, or in the same state (`steptool.trajectories.states`),
    whatever led there. Merged attempts are compared more often, and some of them less fairly: see
    `where_attempts_part`."""
    smoothing: Weight = 0.0
    """How many visits the mean of all attempts at a place counts when `branches` estimate what each way from there is
    worth. The fewer attempts went a way, the less it is credited."""

    @model_validator(mode="after")
    def _merged_and_smoothed_are_branches(self) -> Self:
        if self.baseline != "branches" and (self.merge != "tokens" or self.smoothing):
            raise ValueError(f"merge and smoothing are settings of baseline: branches, not of {self.baseline}")
        return self


def advantages_of_attempts(
    attempts: Sequence[Episode], rewards: Sequence[Sequence[float]], comparison: Comparison, gamma: float
) -> list[list[float]]:
    """Token advantages of the attempts at one task against each other, from their lambda-returns

        G_k = sum_l decay^l r_{k+l}             decay = gamma lambda

    which is GAE with V = 0, and for rewards shaped by a potential GAE of the plain rewards with that potential as the
    critic (arXiv cs/1106.5267). At lambda = 1 the potential cancels where histories are equal (`branches`), and only
    outcomes and costs count. Below 1, what a call earned counts by itself too. That gives less variance, and the bias
    of a critic that takes every useful call for progress.

    Raises ValueError where the comparison is with a critic.
    """
    if comparison.baseline == "critic":
        raise ValueError("a critic compares no attempts")
    decay = gamma * comparison.lambda_step
    if comparison.baseline == "branches":
        returns = [returns_to_go(attempt, decay) for attempt in rewards]
        return where_attempts_part(
            [item.merged_histories if comparison.merge == "state" else item.histories for item in attempts],
            [item.targets for item in attempts],
            [[own[step] for step in item.step_ids] for item, own in zip(attempts, returns, strict=True)],
            smoothing=comparison.smoothing,
        )
    by_step = leave_one_out(rewards, decay)
    return [[own[step] for step in item.step_ids] for item, own in zip(attempts, by_step, strict=True)]


def with_different_siblings(
    episodes: Sequence[Episode], comparison: Comparison, gamma: float
) -> tuple[list[Episode], dict[str, int]]:
    """The attempts that can be compared with others at their task, and how many were left out.

    Left out and counted: truncated attempts (without a critic their return is not known), an attempt without a
    sibling, and all attempts at a task where they ended alike, so that every advantage is 0.
    """
    groups, skipped = groups_of(episodes)
    kept: list[Episode] = []
    skipped["skipped_alike"] = 0
    for attempts in groups:
        found = advantages_of_attempts(attempts, [item.rewards for item in attempts], comparison, gamma)
        if all(abs(advantage) < 1e-9 for own in found for advantage in own):
            skipped["skipped_alike"] += len(attempts)
        else:
            kept += attempts
    return kept, skipped


def groups_of(episodes: Sequence[Episode]) -> tuple[list[list[Episode]], dict[str, int]]:
    """The attempts at each task, two or more, that came to an end; and how many were left out, for which reason."""
    by_task: dict[str, list[Episode]] = defaultdict(list)
    for item in episodes:
        if not item.truncated:
            by_task[item.task_id].append(item)
    groups = [attempts for attempts in by_task.values() if len(attempts) > 1]
    truncated = sum(item.truncated for item in episodes)
    return groups, {"skipped_truncated": truncated, "skipped_alone": len(by_task) - len(groups)}


def returns_to_go(rewards: Sequence[float], gamma: float) -> list[float]:
    """G_k = r_k + gamma G_{k+1} of every step."""
    following, returns = 0.0, []
    for reward in reversed(rewards):
        following = reward + gamma * following
        returns.append(following)
    return returns[::-1]


def leave_one_out(rewards: Sequence[Sequence[float]], gamma: float) -> list[list[float]]:
    """Critic-free step advantages of the attempts at one task: A_k = G_k - b_k.

    b_k is the mean G_k of the *other* attempts that reached step k; where none did, their mean at the
    deepest step that any of them reached. It depends on the siblings only, so it is independent of the
    action and the gradient stays unbiased. (Summing r_l - mean r_l from k on is biased: how many means
    are subtracted depends on when the attempt itself stops.)

    Raises ValueError for fewer than two attempts, or an attempt without steps.
    """
    if len(rewards) < 2 or not all(rewards):
        raise ValueError("needs at least two attempts, each with a step")
    returns = [returns_to_go(attempt, gamma) for attempt in rewards]
    advantages = []
    for index, own in enumerate(returns):
        siblings = [i for i in range(len(returns)) if i != index]
        deepest = max(len(returns[i]) for i in siblings) - 1
        baselines = []
        for k in range(len(own)):
            alive = [returns[i][min(k, deepest)] for i in siblings if len(returns[i]) > min(k, deepest)]
            baselines.append(sum(alive) / len(alive))
        advantages.append([value - baseline for value, baseline in zip(own, baselines, strict=True)])
    return advantages


def where_attempts_part(
    histories: Sequence[Sequence[Hashable]],
    tokens: Sequence[Sequence[int]],
    returns: Sequence[Sequence[float]],
    *,
    smoothing: float = 0.0,
) -> list[list[float]]:
    """Critic-free token advantages of the attempts at one task, from the tree that their tokens make.

    histories[i][j] stands for all that came before sampled token tokens[i][j] of attempt i, equal where that
    is equal; returns[i][j] is the return from its step on. Of the n attempts that share its history,

        A_j = n / (n - 1) (mean return of those that took the same token - mean return of all n)

    and 0 where n = 1: the return minus the mean of the others, averaged over those that did the same. So the credit
    goes to the token at which attempts part. It does not go to the tokens that all of them took, nor to those that
    follow where no other attempt has been. The factors depend on the history and the siblings only, so a
    history's expected gradient is the policy gradient's, weighted by how likely siblings share it.

    With a smoothing of k, the mean of the v attempts that took a token is drawn towards that of all n, as if k more
    of them had returned that:

        (v mean_v + k mean_n) / (v + k)        so A_j is v / (v + k) times the above

    Histories may be states instead of all tokens before. An attempt can then be in one of them several times; each of
    these visits counts in n and v, and where no other attempt has been the advantage is still 0. What a merged state
    does not hold makes the comparison unfair: a shaped return differs where the potential does, and an attempt that
    came later has fewer calls left. And a visit is no longer compared with other attempts alone, so the gradient is
    not exactly the policy gradient's.
    """
    here: dict[Hashable, list[float]] = defaultdict(list)
    visitors: dict[Hashable, set[int]] = defaultdict(set)
    onward: dict[tuple[Hashable, int], list[float]] = defaultdict(list)
    for index, attempt in enumerate(zip(histories, tokens, returns, strict=True)):
        for history, token, value in zip(*attempt, strict=True):
            here[history].append(value)
            visitors[history].add(index)
            onward[history, token].append(value)

    def advantage(history: Hashable, token: int) -> float:
        everyone, same = here[history], onward[history, token]
        n, v = len(everyone), len(same)
        if n == v or len(visitors[history]) == 1:
            return 0.0
        return n / (n - 1) * v / (v + smoothing) * (sum(same) / v - sum(everyone) / n)

    return [[advantage(*at) for at in zip(*attempt, strict=True)] for attempt in zip(histories, tokens, strict=True)]

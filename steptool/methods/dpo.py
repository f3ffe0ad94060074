"""Direct preference optimisation of attempts (arXiv 2305.18290), as ETO has it for agents (arXiv 2403.02502).

A pair is two attempts at one task, of which one came out better. With s(x) the log-probability of what the policy did
in x, less what it gave it before training,

    loss = −log σ(β (s(better) − s(worse))) − imitation · mean log π of the tokens of better         mean over the pairs

`pairs` says what of the two is compared; `abc` are steps, and the tokens of an attempt:

    attempts        a b c | reply | d e  better       pairs: attempts      abc, de   against   abf, g
                    a b f | reply | g    worse        pairs: steps         c         against   f

`attempts` compares all that was done, as ETO does. `steps` compares the two actions at which the attempts part, from
the first token in which they differ to the end of that step: the one decision that both had to take with all else
equal. What followed it is evidence and is not trained on.

Limits. A task teaches nothing where all attempts came out alike. Nothing weighs how much better an attempt was, or how
sure the verdict is: a wrong verdict teaches as much as a right one. The loss sees a difference only, so both
likelihoods may fall (`better_gain`); `imitation` stands against that (RPO, arXiv 2404.19733). With `steps`, attempts
that the world made different, and not the policy, are no pair.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from steptool.core.errors import DataError
from steptool.core.fields import Bound, Many, Rate, Weight
from steptool.methods.base import AdapterMethod, Examples, Measured
from steptool.rewards.base import rewards_of
from steptool.training.batch import Batch, Row
from steptool.training.episode import Episode
from steptool.training.job import Data
from steptool.training.losses import weighted_mean
from steptool.training.measure import measure
from steptool.training.model import Output, PolicyWithValue
from steptool.training.siblings import returns_to_go
from steptool.training.trainer import LowerCache, Objective

Pair = tuple[Episode, Episode]
"""The better one first."""


class Dpo(AdapterMethod):
    class Config(AdapterMethod.Config):
        learning_rate: Rate = 3e-4
        epochs: Many = 2
        beta: Bound = 0.1
        """How little the policy is held to what it was: at a larger one, a smaller change satisfies a pair."""
        pairs: Literal["attempts", "steps"] = "attempts"
        """What is compared: all that was done in both attempts, or the two actions at which they part."""
        prefer: Literal["verdict", "return"] = "verdict"
        """Which of two attempts is the better one: that with the higher verdict, or, where nobody gave one, that with
        the higher return by the project's `reward`."""
        most_pairs: Many = 4
        """Pairs a task; they are taken so that its attempts occur about equally often."""
        imitation: Weight = 0.0
        """Weight of the likelihood of the better one, a token."""

    config: Config
    needs = frozenset({"scored"})

    def examples(self, data: Data) -> Examples:
        """Raises DataError where no attempt has a verdict, no task has a better and a worse attempt, or none of these
        part by what the policy did."""
        judged, counts = self._judged(data)
        found: list[Pair] = []
        parted_by_world = 0
        for attempts in judged.values():
            pairs = [(one, two) for one, two in ranked(attempts) if one.ids != two.ids]
            if self.config.pairs == "steps":
                parted = [decision for pair in pairs if (decision := where_they_part(*pair))]
                parted_by_world += len(pairs) - len(parted)
                pairs = parted
            found += spread(pairs, self.config.most_pairs)
        if self.config.pairs == "steps":
            counts["parted_by_world"] = parted_by_world
        if not found:
            raise DataError(
                f"no two of {sum(map(len, judged.values()))} attempts make a pair: at every task all came out alike, "
                "or there is one alone"
                + (", or part by what the world replied and not by what was done" if parted_by_world else ""),
                fix="sample more attempts a task, or tasks that the policy solves sometimes (sample.attempts, "
                "sample.tasks); where all are solved, there is nothing to learn",
            )
        return Examples(
            [one for pair in found for one in pair],
            {**counts, "pairs": len(found)},
            together=[(2 * pair, 2 * pair + 1) for pair in range(len(found))],
        )

    def prepare(self, policy: PolicyWithValue, batch: Batch, lower: LowerCache, data: Data) -> Measured:
        return {"before": measure(policy, batch, lower, reference=False).logprobs}

    def objective(self, policy: PolicyWithValue, batch: Batch, measured: Measured) -> PairObjective:
        owners = batch.owners()
        lengths = owners.bincount()[owners]
        of_pair = (owners // 2).bincount()[owners // 2]
        better = (owners % 2 == 0) / lengths
        return PairObjective(1 / of_pair, owners, measured["before"], better, self.config)

    def summary(self, batch: Batch, measured: Measured, history: Sequence[dict[str, float]]) -> dict[str, float]:
        names = ("loss", "accuracy", "better_gain")
        return {"loss_first": history[0]["loss"]} | {f"{name}_last": history[-1][name] for name in names}

    def _judged(self, data: Data) -> tuple[dict[str, list[tuple[Episode, float]]], dict[str, float]]:
        """The attempts at each task with what each is judged by, and how many were left out for which reason.

        One that a fault of the engine or the world ended says nothing of the policy.
        """
        worth: list[float | None] = [item.solved for item in data.scored]
        if self.config.prefer == "return":
            gamma = data.reward.gamma
            worth = [returns_to_go(own, gamma)[0] if own else None for own in rewards_of(data.reward, data.scored)]
        counts: dict[str, float] = {"trajectories": len(data.scored), "broken": 0, "unjudged": 0, "unwritable": 0}
        judged: dict[str, list[tuple[Episode, float]]] = defaultdict(list)
        for item, value in zip(data.scored, worth, strict=True):
            if item.trajectory.stop_reason.broken:
                counts["broken"] += 1
            elif value is None:
                counts["unjudged"] += 1
            elif (attempt := data.attempt(item)) is None:
                counts["unwritable"] += 1
            else:
                judged[attempt.task_id].append((attempt, value))
        if not judged and counts["unjudged"]:
            raise DataError(
                f"none of {len(data.scored)} trajectories has a verdict that says which of two is the better one",
                fix="set methods.dpo.prefer: return, which compares them by `reward`; or give training tasks a check, "
                "or take a world or an annotator that can tell",
            )
        return judged, counts


def ranked(attempts: Sequence[tuple[Episode, float]]) -> list[Pair]:
    """Every two of which one is worth more, that one first."""
    return [(one, two) for (one, more), (two, less) in permutations(attempts, 2) if more > less + 1e-9]


def where_they_part(one: Episode, two: Episode) -> Pair | None:
    """The two actions at which attempts part, each as a stream that ends with it; None where they part by a reply.

    Of their tokens only those from the first that differs count as sampled.
    """
    shared = next((at for at, (a, b) in enumerate(zip(one.ids, two.ids, strict=False)) if a != b), None)
    if shared is None or shared - 1 not in one.predict or shared - 1 not in two.predict:
        return None
    return _decision(one, shared), _decision(two, shared)


def _decision(attempt: Episode, start: int) -> Episode:
    """The tokens from `start` to the end of their step."""
    first = attempt.predict.index(start - 1)
    stop = first + attempt.step_ids[first:].count(attempt.step_ids[first])
    return replace(
        attempt,
        ids=attempt.ids[: attempt.predict[stop - 1] + 2],
        predict=attempt.predict[first:stop],
        step_ids=(0,) * (stop - first),
        engine_logprobs=attempt.engine_logprobs[first:stop],
        rewards=(0.0,),
        states=(),
        truncated=False,
    )


def spread(pairs: Sequence[Pair], most: int) -> list[Pair]:
    """At most `most` of them, each time one whose attempts were taken least often so far; the first of equals."""
    taken: dict[str, int] = defaultdict(int)
    left, chosen = list(pairs), list[Pair]()
    while left and len(chosen) < most:
        pair = min(left, key=lambda pair: sorted((taken[one.trajectory_id] for one in pair), reverse=True))
        left.remove(pair)
        chosen.append(pair)
        for one in pair:
            taken[one.trajectory_id] += 1
    return chosen


@dataclass
class PairObjective(Objective):
    """Tensors are [N]. The better attempts have even numbers, each before the worse one of its pair."""

    weights: Tensor
    """Of the tokens of a pair they sum to 1."""
    owners: Tensor
    before: Tensor
    better: Tensor
    """1 / length on the tokens of the better attempts, else 0."""
    config: Dpo.Config
    diverged = "lower methods.dpo.learning_rate, then run the same command again"

    def loss(self, row: Row, output: Output, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
        gain = output.logprobs - self.before[row.tokens].to(output.logprobs)
        owners = self.owners[row.tokens].to(gain.device)
        gains = gain.new_zeros(int(self.owners.max()) + 1).index_add(0, owners, gain)
        better = torch.tensor([index for index in row.episodes if index % 2 == 0], device=gain.device)
        margins = self.config.beta * (gains[better] - gains[better + 1])
        loss = -F.logsigmoid(margins).sum() / denominator
        likelihood = weighted_mean(output.logprobs, self.better[row.tokens].to(gain), denominator)
        stats = {
            "accuracy": (margins > 0).sum() / denominator,
            "margin": margins.detach().sum() / denominator,
            "better_gain": gains[better].detach().sum() / denominator,
            "better_logprob": likelihood.detach(),
        }
        loss = loss - self.config.imitation * likelihood
        return loss, {"loss": loss.detach(), **stats}

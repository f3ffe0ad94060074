"""A method: direct preference optimisation (arXiv 2305.18290).

A pair is a solved and an unsolved attempt at one task. With s(x) the log-probability of the actions of an attempt, less
what the policy gave it before training:  loss = −log σ(β (s(solved) − s(unsolved))).

methods: {dpo: {use: 'dpo:Dpo', beta: 0.1}}        arms: {dpo: {method: dpo, from: sft, data: [r1]}}
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from steptool.core.fields import Bound
from steptool.methods.base import AdapterMethod, Examples, Measured
from steptool.training.batch import Batch, Row
from steptool.training.episode import Episode, episode
from steptool.training.job import Data
from steptool.training.measure import measure
from steptool.training.model import Output, PolicyWithValue
from steptool.training.trainer import LowerCache, Objective


class Dpo(AdapterMethod):
    class Config(AdapterMethod.Config):
        beta: Bound = 0.1

    config: Config
    needs = frozenset({"scored"})

    def examples(self, data: Data) -> Examples:
        solved: dict[str, list[Episode]] = defaultdict(list)
        unsolved: dict[str, list[Episode]] = defaultdict(list)
        for item in data.scored:
            made = episode(item, [0.0] * len(item.judgements))
            if made is not None and item.solved in (0, 1):
                (solved if item.solved else unsolved)[made.task_id].append(replace(made, temperature=1.0))
        pairs = [pair for task in solved for pair in product(solved[task], unsolved[task])]
        episodes = [one for pair in pairs for one in pair]
        return Examples(
            episodes,
            {"trajectories": len(data.scored), "pairs": len(pairs)},
            together=[(2 * pair, 2 * pair + 1) for pair in range(len(pairs))],
        )

    def prepare(self, policy: PolicyWithValue, batch: Batch, lower: LowerCache, data: Data) -> Measured:
        return {"reference": measure(policy, batch, lower, reference=False).logprobs}

    def objective(self, policy: PolicyWithValue, batch: Batch, measured: Measured) -> PairObjective:
        pairs = batch.owners() // 2
        return PairObjective(1 / pairs.bincount()[pairs], batch.owners(), measured["reference"], self.config.beta)

    def summary(self, batch: Batch, measured: Measured, history: Sequence[dict[str, float]]) -> dict[str, float]:
        return {"accuracy_last": history[-1]["accuracy"]}


@dataclass
class PairObjective(Objective):
    """The solved attempts have even numbers, each before the unsolved one of its pair."""

    weights: Tensor
    owners: Tensor
    reference: Tensor
    beta: float

    def loss(self, row: Row, output: Output, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
        gain = output.logprobs - self.reference[row.tokens].to(output.logprobs)
        scores = gain.new_zeros(int(self.owners.max()) + 1).index_add(0, self.owners[row.tokens].to(gain.device), gain)
        solved = torch.tensor([index for index in row.episodes if index % 2 == 0], device=gain.device)
        margins = self.beta * (scores[solved] - scores[solved + 1])
        loss = -F.logsigmoid(margins).sum() / denominator
        return loss, {"loss": loss.detach(), "accuracy": (margins > 0).sum() / denominator}

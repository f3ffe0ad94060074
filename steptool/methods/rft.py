"""Rejection-sampling fine-tuning (arXiv 2308.01825): likelihood of the action tokens of solved trajectories.

The arm to compare PPO with: same packing, adapter, optimiser and checkpoints, no rewards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from steptool.core.errors import DataError
from steptool.core.fields import Many, Rate
from steptool.methods.base import AdapterMethod, Examples, Measured
from steptool.training.batch import Batch, Row
from steptool.training.job import Data
from steptool.training.losses import weighted_mean
from steptool.training.model import Output, PolicyWithValue
from steptool.training.trainer import Objective


class Rft(AdapterMethod):
    class Config(AdapterMethod.Config):
        learning_rate: Rate = 3e-4
        epochs: Many = 2

    config: Config
    needs = frozenset({"scored"})

    def examples(self, data: Data) -> Examples:
        """The trajectories with solved = 1, imported ones as the format writes them; those that it cannot write are
        counted. If there is none, the policy stays as it was.

        Raises DataError where no trajectory has a verdict: nothing says then which ones to imitate.
        """
        if data.scored and all(item.solved is None for item in data.scored):
            raise DataError(
                f"none of {len(data.scored)} trajectories has a verdict, and rft imitates those that solved their task",
                fix="give training tasks a check, take a world or an annotator that can tell, or train with step_ppo "
                "and `reward: {use: auto}`, which learns from the calls; else take the arm out of `arms`",
            )
        solved = [item for item in data.scored if item.solved == 1]
        imported = any(item.trajectory.conditions is None for item in solved)
        found = [attempt for item in solved if (attempt := data.attempt(item))]
        counts = {"trajectories": len(data.scored), "solved": len(found)}
        return Examples(found, {**counts, "unwritable": len(solved) - len(found)} if imported else counts)

    def objective(self, policy: PolicyWithValue, batch: Batch, measured: Measured) -> LikelihoodObjective:
        return LikelihoodObjective(batch.weights(by_step=False))

    def summary(self, batch: Batch, measured: Measured, history: Sequence[dict[str, float]]) -> dict[str, float]:
        return {"loss_first": history[0]["loss"], "loss_last": history[-1]["loss"]}


@dataclass
class LikelihoodObjective(Objective):
    """Mean negative log-likelihood of the sampled tokens."""

    weights: Tensor
    diverged = "lower methods.rft.learning_rate, then run the same command again"

    def loss(self, row: Row, output: Output, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
        weights = self.weights[row.tokens].to(output.logprobs.device)
        loss = -weighted_mean(output.logprobs, weights, denominator)
        return loss, {"loss": loss.detach(), "entropy": weighted_mean(output.entropy, weights, denominator)}

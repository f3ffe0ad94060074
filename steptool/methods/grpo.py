"""GRPO (arXiv 2402.03300) on whole attempts: each is as good as its verdict is among those at the same task.

    A_i = (R_i − mean R) / std R        R_i the verdict of attempt i, and A_i the advantage of all its tokens

Its limits: no verdict, no learning, and none from a task whose attempts all ended alike, which a KL alone then holds.
Every token of an attempt gets the same credit, the wrong call and the right ones before it. Divided by the spread, a
task that nearly all attempts solve counts as much as one where it is even; by each attempt's own length, a long failure
is pushed down less a token than a short one. `scale: none` with `mean: token` does neither, as Dr. GRPO (2503.20783).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from steptool.core.errors import DataError
from steptool.methods.base import Measured
from steptool.methods.clipped import ClippedMethod, Rewarded, rewarded_at_the_end
from steptool.training.advantages import group_advantages
from steptool.training.batch import Batch
from steptool.training.compared import AttemptGroups, unless_all_alike
from steptool.training.episode import Episode
from steptool.training.job import Data
from steptool.training.measure import Measurement
from steptool.training.model import PolicyWithValue


class Grpo(ClippedMethod):
    class Config(ClippedMethod.Config, AttemptGroups):
        mean: Literal["attempt", "token"] = "attempt"
        """What counts the same in the loss: every attempt, whatever its length, or every token."""

    config: Config
    name: ClassVar[str] = "grpo"

    def rewarded(self, data: Data) -> Rewarded:
        """Raises DataError where no attempt has a verdict; one without is left out."""
        return rewarded_at_the_end(data, self.name, costs=self.config.costs)

    def contrasted(self, episodes: list[Episode], gamma: float) -> tuple[list[Episode], Mapping[str, float]]:
        return unless_all_alike(self.config, episodes, gamma)

    def without_signal(self) -> DataError:
        return DataError(
            "at no task do attempts differ in what they are paid at the end, so grpo has nothing to compare",
            fix="sample more attempts at a task (sample.attempts) or other tasks (sample.draw), or train with "
            "step_ppo, which compares calls, too",
        )

    def credit(
        self, policy: PolicyWithValue, batch: Batch, before: Measurement, penalties: Tensor, gamma: float
    ) -> Measured:
        return {"advantages": group_advantages(batch, self.config, gamma)}

    def weights(self, batch: Batch) -> Tensor:
        if self.config.mean == "token":
            return super().weights(batch)
        return torch.tensor([1 / len(item.predict) for item in batch.episodes])[batch.owners()]

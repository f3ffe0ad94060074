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
from steptool.training.batch import Batch
from steptool.training.compared import AttemptGroups, of_attempts
from steptool.training.episode import Episode
from steptool.training.job import Data
from steptool.training.measure import Measurement
from steptool.training.model import PolicyWithValue
from steptool.training.siblings import groups_of


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
        """Attempts at a task that ended alike are kept, for the KL to hold, unless all tasks are like that."""
        groups, skipped = groups_of(episodes)
        alike = [group for group in groups if not any(of_attempts(self.config, group))]
        kept = [item for group in groups for item in group] if len(alike) < len(groups) else []
        return kept, {**skipped, "alike": sum(map(len, alike))}

    def without_signal(self) -> DataError:
        return DataError(
            "at no task do attempts differ in what they are paid at the end, so grpo has nothing to compare",
            fix="sample more attempts at a task (sample.attempts) or other tasks (sample.draw), or train with "
            "step_ppo, which compares calls, too",
        )

    def credit(
        self, policy: PolicyWithValue, batch: Batch, before: Measurement, penalties: Tensor, gamma: float
    ) -> Measured:
        groups, _ = groups_of(batch.episodes)
        by_attempt = {
            item.trajectory_id: value
            for group in groups
            for item, value in zip(group, of_attempts(self.config, group), strict=True)
        }
        return {"advantages": torch.tensor([by_attempt[item.trajectory_id] for item in batch.episodes])[batch.owners()]}

    def weights(self, batch: Batch) -> Tensor:
        if self.config.mean == "token":
            return super().weights(batch)
        return torch.tensor([1 / len(item.predict) for item in batch.episodes])[batch.owners()]

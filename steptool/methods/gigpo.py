"""GiGPO (arXiv 2505.10978): groups in a group. An attempt is compared with the others at its task, and each of its
steps with the steps that were taken in the same state.

    A_t = (R − mean R) / std R + w (G_t − mean G) / std G

R is the sum of an attempt's rewards, G_t the discounted return from step t on, and the second group holds the steps
taken in the state of step t (`steptool.trajectories.states`), by whichever attempt at the task. The tokens of a step
share its advantage, and every step counts the same in the loss. Rewards are those of the reward form: the verdict alone
with alpha 0.

Its limits: where no state recurs but the first, it is GRPO with one comparison more. Every visit counts, so an attempt
that goes in a circle is compared with itself. What a state does not hold, such as the calls that are left, makes its
group unfair.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from steptool.core.errors import DataError
from steptool.methods.base import Measured
from steptool.methods.clipped import ClippedMethod
from steptool.training.advantages import group_advantages
from steptool.training.batch import Batch
from steptool.training.compared import StateGroups, unless_all_alike
from steptool.training.episode import Episode
from steptool.training.measure import Measurement
from steptool.training.model import PolicyWithValue


class Gigpo(ClippedMethod):
    class Config(ClippedMethod.Config, StateGroups): ...

    config: Config
    name: ClassVar[str] = "gigpo"

    def contrasted(self, episodes: list[Episode], gamma: float) -> tuple[list[Episode], Mapping[str, float]]:
        return unless_all_alike(self.config, episodes, gamma)

    def without_signal(self) -> DataError:
        return DataError(
            "at no task do attempts differ in what they earn, so gigpo has nothing to compare",
            fix="sample more attempts at a task (sample.attempts) or other tasks (sample.draw), or let the calls earn "
            "something (reward.alpha)",
        )

    def credit(
        self, policy: PolicyWithValue, batch: Batch, before: Measurement, penalties: Tensor, gamma: float
    ) -> Measured:
        return {"advantages": group_advantages(batch, self.config, gamma)}

    def weights(self, batch: Batch) -> Tensor:
        return batch.weights(by_step=True)

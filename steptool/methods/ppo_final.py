"""PPO with a reward at the end alone, as the paper's baseline: what `step_ppo` is worth without rewards of steps.

    r_t = 0        r_T = verdict − cost · (T + 1) − budget

The costs are those of the reward form, where it has any, all of them paid at the last step. Everything else is
`step_ppo`: `baseline: branches` gives the credit to the tokens at which attempts part, `critic` learns a value.

Its limits: no verdict, no learning. An attempt without one is left out. With `branches` nothing is learned from a task
whose attempts ended alike and took equally many steps.
"""

from __future__ import annotations

from typing import ClassVar

from steptool.methods.clipped import Rewarded, rewarded_at_the_end
from steptool.methods.step_ppo import StepPpo
from steptool.training.compared import FinalComparison
from steptool.training.job import Data


class PpoFinal(StepPpo):
    class Config(FinalComparison, StepPpo.Config): ...

    config: Config
    name: ClassVar[str] = "ppo_final"

    def rewarded(self, data: Data) -> Rewarded:
        """Raises DataError where no attempt has a verdict; one without is left out."""
        return rewarded_at_the_end(data, self.name)

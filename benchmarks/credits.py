"""Ways to give credit that need no model, by name: what each says of every action of some attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.variants import method_of, with_settings
from steptool.core.errors import InputError
from steptool.rewards.base import RewardForm
from steptool.rewards.evidence import cosine
from steptool.training.compared import advantages_by
from steptool.training.episode import Episode
from steptool.training.siblings import returns_to_go

Floats = NDArray[np.float64]
OUTCOME = "reward.alpha=0"
FREE = "reward.step_cost=0,reward.budget_cost=0"
CREDITS = {
    "grpo": f"grpo:{OUTCOME},{FREE}",
    "gigpo": f"gigpo:{OUTCOME}",
    "branches": f"step_ppo:{OUTCOME},lambda_step=1",
    "merged": f"step_ppo:{OUTCOME},lambda_step=1,merge=state",
    "smoothed": f"step_ppo:{OUTCOME},lambda_step=1,merge=state,smoothing=1",
    "published": f"step_ppo:reward.use=paper,reward.alpha=0.5,{FREE},lambda_step=0.95",
    "paper": "step_ppo:reward.use=paper,reward.alpha=0.1",
    "potential": "step_ppo:reward.use=potential",
    "calibrated": "step_ppo:reward.use=calibrated",
    "grounded": "step_ppo:reward.use=grounded,lambda_step=0.95",
    "grounded cheap": "step_ppo:reward.use=grounded,reward.step_cost=0.005,lambda_step=0.95",
}
"""Name -> method:settings. The first compare outcomes alone."""
OUTCOME_ONLY = ("grpo", "gigpo", "branches", "merged", "smoothed")


@dataclass(frozen=True)
class Credit:
    name: str
    form: RewardForm
    config: Any
    """The settings of the method."""
    module: str
    """That of the form; those of the methods are imported here."""
    made_by: Any
    """What it consists of: method and form, with all their settings."""

    @classmethod
    def of(cls, name: str, setting: str) -> Credit:
        """Raises ParamsError or InputError for settings that there are not, or a method whose credit needs a model."""
        params = with_settings({}, setting)
        method = method_of(params)
        if method.name not in ("grpo", "gigpo", "step_ppo") or getattr(method.config, "baseline", "") == "critic":
            fix = "measure step_ppo with another baseline, grpo or gigpo"
            raise InputError("the credit of this method needs a model", where=setting, fix=fix)
        made_by = [name, method.name, method.config.model_dump(mode="json"), params.reward.dump()]
        module = params.reward.path.partition(":")[0]
        return cls(name, params.reward.build(), method.config, module, made_by)

    @property
    def depends_on_all(self) -> bool:
        """Whether what an attempt is rewarded with depends on the others."""
        return hasattr(self.form, "fitted") or hasattr(self.form, "choose")


def named(text: str) -> tuple[str, str]:
    """`name=method:settings` as name and setting."""
    name, _, setting = text.partition("=")
    if not name or not setting:
        fix = "write mine=step_ppo:reward.use=paper"
        raise InputError("a credit is written name=method:settings", where=text, fix=fix)
    return name, setting


def advantages(groups: Sequence[Sequence[Episode]], credit: Credit) -> list[list[list[float]]]:
    """One number an action of each attempt, by group; every action of a scripted attempt is one token."""
    if len(groups[0]) == 1:
        decay = credit.form.gamma * getattr(credit.config, "lambda_step", 1.0)
        return [[own] for own in against_other_tasks([group[0] for group in groups], decay)]
    return [advantages_by(credit.config, group, credit.form.gamma) for group in groups]


def against_other_tasks(attempts: Sequence[Episode], decay: float) -> list[list[float]]:
    """One attempt a task: its lambda-return less the mean of all that reached the same step."""
    returns = [returns_to_go(item.rewards, decay) for item in attempts]
    means = [
        float(np.mean([own[step] for own in returns if len(own) > step])) for step in range(max(map(len, returns)))
    ]
    return [[value - means[step] for step, value in enumerate(own)] for own in returns]


def agreement(found: Floats) -> Floats:
    """[..., 3] -> [...], in [-1, 1]; 0 where nothing varies."""
    return cosine(found, rounding=1e-12)

"""A logistic model of a few numbers, as a record.

P(solved) = 1 / (1 + exp(−(bias + Σ weight · (x − mean) / scale)))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from steptool.annotators.local.features import NAMES
from steptool.core.types import Frozen

Number = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
DIGITS = 6


class Weight(Frozen):
    """Of one feature: what one standard deviation of it is worth."""

    weight: Number
    mean: Number
    scale: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]


class Logistic(Frozen):
    bias: Number
    weights: dict[str, Weight]
    made: dict[str, str | int | float] = Field(default_factory=dict)
    """How it was fitted, to what, and how well it agrees there."""

    @model_validator(mode="after")
    def _has_every_feature(self) -> Self:
        if odd := ", ".join(sorted(set(self.weights) ^ set(NAMES))):
            raise ValueError(f"its weights are not those of the features: {odd}; fit it again")
        return self

    def probability(self, features: Sequence[float]) -> float:
        """That the attempt solved its task. `features`: one for each of NAMES."""
        pairs = zip([self.weights[name] for name in NAMES], features, strict=True)
        total = self.bias + sum(own.weight * (x - own.mean) / own.scale for own, x in pairs)
        p = 1 / (1 + math.exp(-total)) if total >= 0 else 1 - 1 / (1 + math.exp(min(total, 700)))
        return round(p, DIGITS)

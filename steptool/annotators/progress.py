"""Adds the score `progress` to what another annotator gives: how much a policy that was trained prefers a step to what
its reference would do.

    progress_k = σ(β Σ over the tokens of the action of step k: log π(token) − log π_reference(token))

For a policy that is the best one at a divergence β from its reference, β log(π/π_reference) is the advantage of an
action (arXiv 2606.26080; arXiv 2305.18290, 4); σ makes it a score: above 1/2 where π finds the step likelier. It costs
two forward passes and no training. None where the tokens of a step were not sampled here.

    annotate: {use: progress, policy: models/sft, reference: models/base, judge: {use: rules}}

Whether it says anything about outcomes is for `validate` and `reward: {use: calibrated}` to find out; no other reward
form of this package reads it.

Limits. It can say no more than π has learned: a policy that was trained on demonstrations tells what looks like one. A
policy cannot judge attempts that it learned from later, so an arm that learns from a round of this project is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from steptool.annotators.base import Annotator, LooksAhead
from steptool.config.plugins import Section, Use
from steptool.core.fields import Bound, Settings, Text
from steptool.core.types import Judgement, Reference, Task, Trajectory
from steptool.worlds.base import Ends

if TYPE_CHECKING:
    from steptool.training.ratios import StepRatios

JUDGE = Section("annotate", "rules")
DIGITS = 6
"""Of a score: what lies beyond depends on which attempts were computed together."""


class Progress:
    name = "progress"

    class Config(Settings):
        policy: Annotated[Text, Field(min_length=1)]
        """Folder of the policy that was trained."""
        reference: Annotated[Text, Field(min_length=1)]
        """Folder of the policy that it is compared with: what it was trained from."""
        beta: Bound = 0.1
        """What a nat is worth."""
        judge: Annotated[Use, JUDGE] = Field(default_factory=JUDGE)
        """The annotator that gives the other scores."""

    @staticmethod
    def modules(config: Config) -> list[str]:
        return config.judge.modules()

    @staticmethod
    def content(config: Config) -> str:
        return config.judge.content()

    @staticmethod
    def policies(config: Config) -> tuple[Path, ...]:
        more: tuple[Path, ...] = config.judge.policies()
        return (Path(config.policy), Path(config.reference), *more)

    def __init__(self, config: Config) -> None:
        self.config = config
        self._judge: Annotator = config.judge.build()
        self._ratios: StepRatios | None = None
        self._known: dict[str, list[float | None]] = {}

    async def annotate(self, trajectory: Trajectory, task: Task, reference: Reference) -> Sequence[Judgement]:
        """Raises what the other annotator raises, ModelError for a folder that is no policy, DataError for tokens that
        a policy does not have."""
        judgements = await self._judge.annotate(trajectory, task, reference)
        if trajectory.id not in self._known:
            self._look_at([trajectory])
        ratios = self._known.pop(trajectory.id)
        return [self._with_progress(*pair) for pair in zip(judgements, ratios, strict=True)]

    def look_ahead(self, trajectories: Sequence[Trajectory]) -> None:
        """Attempts at one task share their tokens: together they cost a third."""
        if isinstance(self._judge, LooksAhead):
            self._judge.look_ahead(trajectories)
        self._look_at(trajectories)

    def end(self) -> None:
        """May be called twice."""
        if isinstance(self._judge, Ends):
            self._judge.end()

    def _look_at(self, trajectories: Sequence[Trajectory]) -> None:
        from steptool.training.ratios import StepRatios  # torch takes seconds to import

        if self._ratios is None:
            self._ratios = StepRatios(Path(self.config.policy), Path(self.config.reference))
        found = self._ratios(trajectories)
        self._known |= {attempt.id: own for attempt, own in zip(trajectories, found, strict=True)}

    def _with_progress(self, judgement: Judgement, ratio: float | None) -> Judgement:
        score = None if ratio is None else round(_sigmoid(self.config.beta * ratio), DIGITS)
        return judgement.model_copy(update={"scores": {**judgement.scores, "progress": score}})


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(x))

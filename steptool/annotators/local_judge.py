"""A judge without an endpoint: fixed rules for the calls, and for the answer a small logistic model of plain numbers.

    success, contribution, builds, grounded     as annotator `rules` gives them
    verdict                                     P(solved): 0 without an answer, else what the model says of it
    solved                                      the session's outcome; where that is unknown, whether P is over 1/2

The weights that come with the package are fitted to GPT-4's verdicts on 6,500 attempts of ToolBench
(docs/judges.md); `steptool local-judge fit` fits others to verdicts of your own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from steptool.annotators.local.features import features
from steptool.annotators.local.model import Logistic
from steptool.annotators.rules import Rules
from steptool.core.errors import InputError
from steptool.core.fields import Fraction, Outside
from steptool.core.storage import file_hash, read_record
from steptool.core.types import Judgement, Reference, StopReason, Task, Trajectory

SHIPPED = Path(__file__).parent / "local" / "weights.json"


class LocalJudge:
    name: ClassVar[str] = "local_judge"

    class Config(Rules.Config):
        weights: Outside = ""
        """File that `steptool local-judge fit` wrote; empty: the weights of the package."""
        threshold: Fraction | None = 0.5
        """What P must be over for `solved` to be 1, else it is 0; null: `solved` is P itself, which `rft` never finds
        to be 1."""

    @staticmethod
    def content(config: Config) -> str:
        """Hash of a file of weights. Raises InputError where there is none."""
        return f"weights {file_hash(_file(config))}" if config.weights else ""

    def __init__(self, config: Config) -> None:
        """Raises InputError for a file of weights that is missing, DataError for one that cannot be read."""
        self.config = config
        self._rules = Rules(Rules.Config(consulted=config.consulted))
        self._model = read_record(_file(config), Logistic)

    async def annotate(self, trajectory: Trajectory, task: Task, reference: Reference) -> Sequence[Judgement]:
        """Raises DataError as `rules` does."""
        judgements = await self._rules.annotate(trajectory, task, reference)
        if not judgements:
            return judgements
        *before, last = judgements
        verdict = self._verdict(trajectory, task)
        scores = {**last.scores, "verdict": verdict}
        reason = last.reason
        if last.solved is None and verdict is not None:
            threshold = self.config.threshold
            scores["solved"] = verdict if threshold is None else float(verdict > threshold)
            reason = f"P(solved) {verdict:.2f}" if trajectory.stop_reason is StopReason.finished else last.reason
        return (*before, last.model_copy(update={"scores": scores, "reason": reason}))

    def _verdict(self, trajectory: Trajectory, task: Task) -> float | None:
        """None of an attempt that a fault ended."""
        if trajectory.stop_reason.broken:
            return None
        if trajectory.stop_reason is not StopReason.finished:
            return 0.0
        return self._model.probability(features(trajectory, task))


def _file(config: LocalJudge.Config) -> Path:
    file = Path(config.weights) if config.weights else SHIPPED
    if not file.is_file():
        fix = "name the file that `steptool local-judge fit FOLDER --out FILE` wrote"
        raise InputError("there is no file of weights", where=f"annotate.weights: {file}", fix=fix)
    return file

"""What the page and the terminal show: the arms, how they did, and how they compare. Pure."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from steptool.core.types import Frozen
from steptool.evaluation.built_in import METRICS
from steptool.evaluation.compare import Comparison
from steptool.evaluation.metrics import ALL, METRIC_OF, Evaluation, Measure, Primary, primary_measure

TITLES = {
    "finish_rate": "Finished",
    "pass_rate_finished": "Solved, if finished",
    "tool_recall": "Relevant tools called",
    "call_success": "Calls that succeed",
    "grounded": "Grounded answers",
    "pass_rate": "Solved",
    "calls_per_task": "Actions a task",
    "tokens_per_task": "Tokens a task",
}
"""Titles of built-in metrics, where the name is not clear enough."""


class Arm(Frozen):
    """One policy of the tables, and how it was made."""

    name: str
    method: str | None = None
    """None where it was evaluated, but not trained here."""
    endpoint: str = ""
    """The model and where it answers, for a policy behind an endpoint."""
    start: str | None = None
    """What training started from: another arm, or the base model."""
    data: tuple[str, ...] = ()
    """What it was trained on: rounds, or demonstrations."""

    @property
    def origin(self) -> str:
        """Its caption as the end of a sentence that begins with its name."""
        if self.method is not None:
            return f"was made by {self.caption}"
        return f"is {self.endpoint}" if self.endpoint else "was not trained here"

    @property
    def caption(self) -> str:
        """`step_ppo from ppo1 on r2`"""
        if self.method is None:
            return self.endpoint or "not trained here"
        start = f" from {self.start}" if self.start else ""
        return f"{self.method}{start}" + (f" on {', '.join(self.data)}" if self.data else "")


class Results(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    arms: list[Arm]
    """In the order of params.yaml."""
    evaluations: list[Evaluation]
    """Of these arms, in their order."""
    comparisons: list[Comparison]
    """In the order of `compare`; the first is the headline."""

    @property
    def headline(self) -> Comparison | None:
        """The comparison that the report is about."""
        return self.comparisons[0] if self.comparisons else None

    @property
    def measure(self) -> Primary:
        """What the arms are compared on."""
        return self.headline.measure if self.headline else primary_measure(self.evaluations)

    @property
    def metric(self) -> str:
        """The metric of this measure."""
        return METRIC_OF[self.measure]

    @property
    def all_judged(self) -> bool:
        """Whether every task has a verdict under every arm."""
        return all(each.verdicts == len(each.solved) for each in self.evaluations)

    @property
    def measures(self) -> dict[str, Measure]:
        """What is measured beside `metric`, by its name, in the order of the tables; not what no arm has a value of."""
        found = self.evaluations[0].measures if self.evaluations else {}
        return {name: measure for name, measure in found.items() if name != self.metric and self._has_values(name)}

    def _has_values(self, metric: str) -> bool:
        return any(each.metrics[ALL][metric].value is not None for each in self.evaluations)

    @property
    def own_measures(self) -> dict[str, Measure]:
        """Those of the project."""
        return {name: measure for name, measure in self.measures.items() if name not in METRICS}

    def arm(self, name: str) -> Arm:
        return next((arm for arm in self.arms if arm.name == name), Arm(name=name))

    def evaluation(self, name: str) -> Evaluation:
        """Raises KeyError where the arm was not evaluated."""
        return {evaluation.name: evaluation for evaluation in self.evaluations}[name]

    def line_of(self, name: str) -> list[str]:
        """The arm and those that it came from, the oldest first: sft, ppo1, ppo2."""
        line: list[str] = []
        known = {arm.name: arm.start for arm in self.arms}
        at: str | None = name
        while at in known and at not in line:
            line.insert(0, at)
            at = known[at]
        return line


def title_of(measure: str) -> str:
    """What a metric is called in the tables."""
    return TITLES.get(measure, measure.replace("_", " ").capitalize())

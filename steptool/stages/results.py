"""What `evaluate` wrote, read back: for the report, the registry and the terminal."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, RootModel

from steptool.config.arms import Arm as ArmOfParams
from steptool.config.arms import arms_of
from steptool.config.places import COMPARISONS, EVALUATION
from steptool.config.settings import Params
from steptool.core.errors import DataError
from steptool.core.storage import WRITTEN_OTHERWISE, read_record
from steptool.core.types import Frozen
from steptool.evaluation.built_in import METRICS
from steptool.evaluation.compare import Comparison, refuse_unless_comparable
from steptool.evaluation.metrics import Evaluation
from steptool.report.results import Arm, Results

TRAINING = "training.json"
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]


class Comparisons(RootModel[list[Comparison]]):
    """What comparisons.json holds."""


class Training(Frozen):
    """What training.json of a policy holds: the summary, and one row of metrics for each optimiser step."""

    summary: dict[str, Number]
    steps: list[dict[str, Number]]


def read_results(params: Params) -> Results:
    """Raises DataError where a file is missing, broken or was written by another version of the schema, and
    NotComparable where the evaluations are not of one run.
    """
    arms = arms_of(params)
    evaluations = [read_evaluation(arm.name) for arm in arms]
    for evaluation in evaluations[1:]:
        refuse_unless_comparable(evaluation, evaluations[0])
    return Results(
        arms=[_shown(*each) for each in zip(arms, evaluations, strict=True)],
        evaluations=evaluations,
        comparisons=_read_comparisons(set(params.arms)),
    )


def _shown(arm: ArmOfParams, evaluation: Evaluation) -> Arm:
    return Arm(
        name=arm.name,
        method=arm.method.name if arm.method else None,
        endpoint=evaluation.policy.name if evaluation.conditions.is_endpoint else "",
        start=arm.start,
        data=arm.data,
    )


def _read_comparisons(arms: set[str]) -> list[Comparison]:
    path = EVALUATION / COMPARISONS
    comparisons = read_record(path, Comparisons).root
    unknown = {name for each in comparisons for name in (each.candidate, each.baseline)} - arms
    if unknown:
        found = f"compares arms that are not in params.yaml: {', '.join(sorted(unknown))}"
        raise DataError(found, where=str(path), fix=WRITTEN_OTHERWISE)
    return comparisons


def read_evaluation(arm: str) -> Evaluation:
    """Raises DataError where it is missing, broken or was written by another version of the schema."""
    path = EVALUATION / f"{arm}.json"
    evaluation = read_record(path, Evaluation)
    found = None
    if evaluation.name != arm:
        found = f"is the evaluation of {evaluation.name!r}"
    elif evaluation.metrics.keys() != evaluation.groups.keys():
        found = f"has metrics of {', '.join(evaluation.metrics)}, but tasks of {', '.join(evaluation.groups)}"
    elif lacking := METRICS.keys() - evaluation.measures.keys():
        found = f"lacks metrics: {', '.join(sorted(lacking))}"
    if found:
        raise DataError(found, where=str(path), fix=WRITTEN_OTHERWISE)
    return evaluation

"""What `evaluate` wrote, read back: for the report, the registry and the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, RootModel

from steptool.config.places import EVALUATION, MODELS, RFT, SFT
from steptool.config.settings import Params
from steptool.core.errors import DataError
from steptool.core.storage import WRITTEN_OTHERWISE, read_record
from steptool.core.types import Frozen
from steptool.evaluation.compare import Comparison, refuse_unless_comparable
from steptool.evaluation.metrics import METRICS, Evaluation

COMPARISONS = "comparisons.json"
TRAINING = "training.json"
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]


def policies_of(params: Params) -> dict[str, Path]:
    """Short name of each evaluated policy and its folder: the baseline first."""
    return {"sft": SFT, **{key: MODELS / key for key in params.rounds}, "rft": RFT}


class Comparisons(RootModel[list[Comparison]]):
    """What comparisons.json holds."""


class Training(Frozen):
    """What training.json of a policy holds: the summary, and one row of metrics for each optimiser step."""

    summary: dict[str, Number]
    steps: list[dict[str, Number]]


def read_results(params: Params) -> tuple[list[Evaluation], list[Comparison]]:
    """Raises DataError where a file is missing, broken or was written by another version of the schema, and
    NotComparable where the evaluations are not of one run.
    """
    evaluations = [_read_evaluation(name) for name in policies_of(params)]
    for evaluation in evaluations[1:]:
        refuse_unless_comparable(evaluation, evaluations[0])
    return evaluations, read_record(EVALUATION / COMPARISONS, Comparisons).root


def _read_evaluation(name: str) -> Evaluation:
    path = EVALUATION / f"{name}.json"
    evaluation = read_record(path, Evaluation)
    found = None
    if evaluation.name != name:
        found = f"is the evaluation of {evaluation.name!r}"
    elif evaluation.metrics.keys() != evaluation.groups.keys():
        found = f"has metrics of {', '.join(evaluation.metrics)}, but tasks of {', '.join(evaluation.groups)}"
    elif lacking := [group for group, row in evaluation.metrics.items() if not METRICS.keys() <= row.keys()]:
        found = f"lacks metrics of {lacking[0]}: {', '.join(METRICS.keys() - evaluation.metrics[lacking[0]].keys())}"
    if found:
        raise DataError(found, where=str(path), fix=WRITTEN_OTHERWISE)
    return evaluation

"""What `evaluate` wrote, read back: for the report, the registry and the terminal."""

from __future__ import annotations

from pathlib import Path

from steptool.evaluation.compare import Comparison
from steptool.evaluation.metrics import Evaluation
from steptool.evaluation.wording import text_table
from steptool.params import Params, load_params
from steptool.stages.common import EVALUATION, MODELS, PARAMS, RFT, SFT
from steptool.storage import WRITTEN_OTHERWISE, parse_record, read_json, read_record

COMPARISONS = "comparisons.json"


def policies_of(params: Params) -> dict[str, Path]:
    """Short name of each evaluated policy and its folder: the baseline first."""
    return {"sft": SFT, **{key: MODELS / key for key in params.rounds}, "rft": RFT}


def read_results(params: Params) -> tuple[list[Evaluation], list[Comparison]]:
    """Raises DataError where a file is missing or was written by another version of the schema."""
    evaluations = [read_record(EVALUATION / f"{name}.json", Evaluation) for name in policies_of(params)]
    path = EVALUATION / COMPARISONS
    comparisons = [
        parse_record(row, Comparison, where=f"{path}: comparison {number}", fix=WRITTEN_OTHERWISE)
        for number, row in enumerate(read_json(path), start=1)
    ]
    return evaluations, comparisons


def results_table() -> str:
    """The table that `steptool run` ends with."""
    return text_table(*read_results(load_params(PARAMS)))

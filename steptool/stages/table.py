"""The table that `steptool run` ends with and `steptool results` prints."""

from __future__ import annotations

from steptool.config.places import PARAMS
from steptool.config.settings import load_params
from steptool.report.wording import text_table
from steptool.stages.results import read_results


def results_table() -> str:
    """Raises what `read_results` raises."""
    return text_table(read_results(load_params(PARAMS)))

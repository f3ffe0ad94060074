"""Stage `select`: every arm on the dev tasks, so that `steptool register` can choose the best of them.

In the graph only where params.yaml says `register: {best_on: dev}`: the tasks of the report must not choose.
"""

from __future__ import annotations

from steptool.config.places import PARAMS, SELECTION
from steptool.config.settings import load_params
from steptool.stages.evaluate import measure_arms, measuring


def main() -> None:
    params = load_params(PARAMS)
    with measuring("select", SELECTION, params) as running:
        measure_arms(params, "dev", running)

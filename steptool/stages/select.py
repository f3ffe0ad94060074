"""Stage `select`: every arm with weights on the dev tasks, so that `steptool register` can choose the best of them.

In the graph only where params.yaml says `register: {best_on: dev}`: the tasks of the report must not choose.
"""

from __future__ import annotations

from steptool.config.arms import arms_of
from steptool.config.places import PARAMS, SELECTION
from steptool.config.settings import load_params
from steptool.stages.evaluate import measure_arms, measuring


def main() -> None:
    params = load_params(PARAMS)
    arms = [arm for arm in arms_of(params) if not arm.endpoint]
    with measuring("select", SELECTION, params, arms) as running:
        measure_arms(params, arms, "dev", running)

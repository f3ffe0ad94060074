"""Stage `select`: every arm on the dev tasks, to choose which one to register (`register.best_on: dev`)."""

from __future__ import annotations

from steptool.config.places import PARAMS, SELECTION
from steptool.config.settings import load_params
from steptool.stages.evaluate import measure_arms, measuring


def main() -> None:
    params = load_params(PARAMS)
    with measuring("select", SELECTION, params) as running:
        measure_arms(params, "dev", running)

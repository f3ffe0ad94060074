"""Stage `base`: the base model, from the bundled package, a local folder, or a hub."""

from __future__ import annotations

from steptool.params import load_params
from steptool.stages.common import BASE, PARAMS, stage
from steptool.training.base_model import fetch_base


def main() -> None:
    params = load_params(PARAMS)
    with stage("base", BASE, params, uses={"base": params.model.base}, inputs={}) as running:
        fetch_base(params.model.base, running.out)
        running.says(f"model {params.model.base}")

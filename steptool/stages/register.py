"""Stage `register`: the last round's model becomes the registry's `candidate`."""

from __future__ import annotations

from steptool.config.places import EVALUATION, MERGED, MODELS, PARAMS, REGISTRATION, SFT
from steptool.config.settings import load_params
from steptool.core.storage import read_record, write_json
from steptool.evaluation.metrics import Evaluation
from steptool.policies.folder import plain_weights
from steptool.registry.models import register
from steptool.stages.common import stage
from steptool.stages.rounds import last_round
from steptool.tracking.run import Tracking


def main() -> None:
    params = load_params(PARAMS)
    last = last_round(params)
    policy, evaluated, started = MODELS / last, EVALUATION / f"{last}.json", EVALUATION / f"{SFT.name}.json"
    uses = {"tracking": params.tracking, "policy": last}
    inputs = {"policy": policy, "evaluation": evaluated, "start": started}
    with stage("register", REGISTRATION, params, uses=uses, inputs=inputs, tracks_itself=True) as running:
        evaluation, start = read_record(evaluated, Evaluation), read_record(started, Evaluation)
        lineage = {
            "seed": str(params.seed),
            "policy": f"{evaluation.policy.name} {evaluation.policy.revision}",
            "world": f"{evaluation.budget.world.name} {evaluation.budget.world.revision}",
            "annotator": f"{evaluation.budget.annotator.name} {evaluation.budget.annotator.revision}",
            **{f"input.{name}": digest for name, digest in running.determines["inputs"].items()},
        }
        with plain_weights(policy, evaluation.budget.dtype, MERGED) as weights:
            version = register(
                Tracking(None, params.tracking.experiment),
                running.run,
                params.tracking.model_name,
                weights,
                evaluation,
                lineage,
                start=start,
            )
        write_json(running.out / "receipt.json", {**version.model_dump(), "lineage": lineage})
        running.says(f"{version.name} version {version.version} is the candidate; `steptool promote` is next")

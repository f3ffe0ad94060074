"""`steptool register [ARM]`: the model of an arm becomes the registry's `candidate`.

Not a stage of the graph: which arm it is may follow from an evaluation, and the registry is no output of this folder.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import RootModel

from steptool.config.arms import Arm, arm_of, arms_of, pairs_of
from steptool.config.graph import SUMMARY
from steptool.config.places import EVALUATION, MERGED, PARAMS, REGISTRATION, SELECTION
from steptool.config.settings import Params, load_params
from steptool.core.errors import DataError
from steptool.core.storage import file_hash, read_record, write_json
from steptool.evaluation.metrics import METRIC_OF, TASKS_WITH_VERDICT, Evaluation
from steptool.policies.canary import ask_folder, read_canary
from steptool.policies.folder import plain_weights
from steptool.policies.precision import compute_dtype
from steptool.registry.models import Registration, register
from steptool.stages.results import read_evaluation
from steptool.tracking.run import Tracking

NO_VERDICT = (
    "no task of this split has a verdict: give some a check, name the arm (register: {arm: NAME}), or choose by "
    "grounded answers (promote: {measure: grounded})"
)
EVALUATE_AGAIN = "bring it up to date with `steptool run`, then register again"


def main(name: str | None = None) -> None:
    """Register the arm `name`; by default the one that `register` in params.yaml says.

    Raises ParamsError for an unknown arm, DataError where its evaluation is missing or of other weights, ModelError
    where its weights do not compute what their trainer did, and what `registry.models.register` raises.
    """
    params = load_params(PARAMS)
    arm = arm_of(params, name or arm_to_register(params))
    folder, against = arm.weights, baseline_of(params, arm.name)
    evaluation = read_evaluation(arm.name)
    dtype = evaluation.conditions.dtype or compute_dtype(params.model)
    baseline = read_evaluation(against) if against else None
    tracking = Tracking(None, params.tracking.experiment)
    with (
        tracking.stage("register", params={"arm": arm.name}, tracks_itself=True) as run,
        plain_weights(folder, dtype, MERGED) as weights,
    ):
        ask_folder(weights, read_canary(folder), dtype)
        digests = {key: file_hash(path) for key, path in _inputs(arm, against).items()}
        _refuse_other_weights(arm, evaluation, digests["policy"])
        for key, path in _inputs(arm, against).items():
            run.dataset(path, key, digests[key])
        lineage = _lineage(params, arm, evaluation, digests)
        version = register(tracking, run, params.tracking.model_name, weights, evaluation, lineage, baseline=baseline)
        write_json(REGISTRATION, Registration(arm=arm.name, lineage=lineage, **version.model_dump()).model_dump())
    done = "is registered as" if version.is_new else "was registered before, with this evaluation, as"
    print(
        f"register: {arm.name} {done} {version.name} version {version.version}, the candidate; "
        "`steptool promote` is next",
        flush=True,
    )


class Summary(RootModel[dict[str, dict[str, float]]]):
    """What summary.json of an evaluation holds: arm → metric → value."""


def arm_to_register(params: Params) -> str:
    """The arm that `register` in params.yaml says; where it says nothing, the first candidate of `compare`."""
    arms = arms_of(params)
    if params.register_.best_on is not None:
        return _best([arm.name for arm in arms if arm.method is not None], METRIC_OF[params.promote.measure])
    with_weights = [arm.name for arm in arms if arm.endpoint is None]
    candidates = [*(candidate for candidate, _ in pairs_of(params)), *with_weights]
    return params.register_.arm or next((name for name in candidates if name in with_weights), arms[0].name)


def _best(trained: list[str], metric: str) -> str:
    """Of the arms, the one with the best value of the metric in the selection; of equal ones the first."""
    path = SELECTION / SUMMARY
    rows = read_record(path, Summary).root
    rates = {arm: row[metric] for arm, row in rows.items() if metric in row}
    if lacking := [arm for arm in trained if arm not in rates]:
        judged = [row.get(TASKS_WITH_VERDICT) != 0 for arm, row in rows.items() if arm in lacking]
        fix = EVALUATE_AGAIN if not judged or any(judged) else NO_VERDICT
        raise DataError(f"has no {metric} of {', '.join(lacking)}", where=str(path), fix=fix)
    return max(trained, key=lambda arm: rates[arm])


def baseline_of(params: Params, arm: str) -> str | None:
    """What the gate compares an arm with where there is no champion: the first arm that `compare` names for it, else
    the first arm of all; None for that one itself."""
    first = next(iter(params.arms))
    baseline = next((baseline for candidate, baseline in pairs_of(params) if candidate == arm), first)
    return None if baseline == arm else baseline


def _inputs(arm: Arm, baseline: str | None) -> dict[str, Path]:
    found = {"policy": arm.weights, "evaluation": EVALUATION / f"{arm.name}.json"}
    return found | ({"baseline": EVALUATION / f"{baseline}.json"} if baseline else {})


def _refuse_other_weights(arm: Arm, evaluation: Evaluation, found: str) -> None:
    if evaluation.policy.revision != found:
        raise DataError(
            f"is of {evaluation.policy}, but {arm.folder} is now {found}",
            where=str(EVALUATION / f"{arm.name}.json"),
            fix=EVALUATE_AGAIN,
        )


def _lineage(params: Params, arm: Arm, evaluation: Evaluation, digests: dict[str, str]) -> dict[str, str]:
    """What made the model and its evaluation."""
    conditions = evaluation.conditions
    return {
        "seed": str(params.seed),
        "arm": arm.name,
        "policy": str(evaluation.policy),
        "world": str(conditions.world),
        "format": str(conditions.format),
        "engine": f"{conditions.engine} in {conditions.dtype}",
        "search": str(conditions.search),
        "annotator": str(evaluation.annotator),
        **{f"input.{name}": digest for name, digest in digests.items()},
    }

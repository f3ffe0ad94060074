"""Which model is which: versions of a registered model, each with its weights, its evaluation and its lineage.

A version holds a plain model folder (config, safetensors, tokenizer), byte for byte as it was
evaluated, so that Transformers, vLLM or anything else loads it with no MLflow in between. Adapters
are merged first: MLflow's own Transformers flavour saves an adapter on a local base so that loading
it silently re-initialises weights.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from steptool.errors import DataError, InputError, ModelError
from steptool.evaluation.metrics import Evaluation
from steptool.registry.client import RefusedError, told_plainly
from steptool.registry.tracking import StageRun, Tracking
from steptool.storage import file_hash
from steptool.types import Frozen, content_hash

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CANDIDATE = "candidate"
CHAMPION = "champion"

MODEL_HASH = "steptool.model_hash"
EVALUATION_HASH = "steptool.evaluation_hash"
"""Tags set last: a version without them was not registered to the end."""
LINEAGE = "lineage."


class RegisteredVersion(Frozen):
    name: str
    version: int
    run_id: str
    """The run that registered it; its artifacts under `versions/<version>/` hold evaluation and receipts."""
    model_hash: str
    is_new: bool
    """False where the same weights with the same evaluation were registered before."""


def register(
    tracking: Tracking,
    run: StageRun,
    name: str,
    model_dir: Path,
    evaluation: Evaluation,
    lineage: Mapping[str, str],
) -> RegisteredVersion:
    """Register the model in `model_dir` as a version of `name`, with alias `candidate`.

    `lineage` says which data, code and seed made it (data hashes, annotator, world revision, …); it
    becomes tags of the version. Registering the same again makes no second version. Raises ModelError
    for a folder that is not a whole plain model, TrackingError if MLflow cannot be reached.
    """
    check_plain_model(model_dir)
    model_hash, evaluation_hash = file_hash(model_dir), content_hash(evaluation.model_dump(mode="json"))
    hashes = {MODEL_HASH: model_hash, EVALUATION_HASH: evaluation_hash}
    with told_plainly(tracking.uri, f"register {name}"):
        version = _registered_before(tracking, name, hashes)
        is_new = version is None
        if version is None:
            version = _create_version(tracking, run, name, model_dir, lineage)
            number = str(version.version)
            tracking.client.log_text(run.run_id, evaluation.model_dump_json(indent=2), _evaluation_file(number))
            for key, value in hashes.items():
                tracking.client.set_model_version_tag(name, number, key, value)
        tracking.client.set_registered_model_alias(name, CANDIDATE, str(version.version))
    return RegisteredVersion(
        name=name, version=int(version.version), run_id=version.run_id, model_hash=model_hash, is_new=is_new
    )


def load_registered(tracking: Tracking, name: str, which: str | int = CHAMPION, *, out: Path | None = None) -> Path:
    """The folder of a version's model, to give to `AutoModelForCausalLM.from_pretrained` or to vLLM.

    `which` is an alias or a version number. With `out` the folder is copied or downloaded to there
    (it must not exist); without, it is where the artifacts lie, or a temporary download. Raises
    ModelError if there is no such version, or if its files are not those that were registered.
    """
    if out is not None and out.exists():
        raise InputError("is already there", where=str(out), fix="name a new folder")
    version = find_version(tracking, name, which)
    if out is None:
        return _download(tracking, version, None)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as staging:
        _download(tracking, version, staging).rename(out)
    return out


def _download(tracking: Tracking, version: ModelVersion, into: str | None) -> Path:
    """The folder of a version's files, checked against what was registered."""
    import mlflow.artifacts

    with told_plainly(tracking.uri, f"fetch {version.name} version {version.version}"):
        source = tracking.client.get_logged_model(_model_id(version)).artifact_location
        folder = Path(
            mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=into, tracking_uri=tracking.uri)
        )
    expected, found = version.tags.get(MODEL_HASH), file_hash(folder)
    if found != expected:
        raise ModelError(
            f"content {found}, but version {version.version} was registered as {expected}",
            where=str(folder),
            fix="register the model again: `dvc repro --force register`",
        )
    return folder


def load_evaluation(tracking: Tracking, version: ModelVersion) -> Evaluation:
    """The evaluation stored with a version. Raises DataError if it is missing or of another schema."""
    doing = f"read the evaluation of version {version.version}"
    with told_plainly(tracking.uri, doing), tempfile.TemporaryDirectory() as folder:
        path = tracking.client.download_artifacts(version.run_id, _evaluation_file(version.version), folder)
        text = Path(path).read_text(encoding="utf-8")
    try:
        return Evaluation.model_validate_json(text)
    except ValueError as error:
        raise DataError(
            f"not an evaluation: {error}",
            where=f"{version.name} version {version.version}",
            fix="evaluate the model again and attach the result with `attach_evaluation`",
        ) from error


def attach_evaluation(tracking: Tracking, name: str, which: str | int, evaluation: Evaluation) -> None:
    """Replace the evaluation of a version, say by one at the budget of today's candidates.

    Raises ModelError unless it is of the policy that the version's own evaluation names.
    """
    version = find_version(tracking, name, which)
    known = load_evaluation(tracking, version).policy
    if evaluation.policy != known:
        raise ModelError(
            f"the evaluation is of {evaluation.policy}, the version is {known}",
            where=f"{name} version {version.version}",
            fix="evaluate the model of this version: fetch it with `load_registered`",
        )
    with told_plainly(tracking.uri, "attach the evaluation"):
        number = str(version.version)
        tracking.client.log_text(version.run_id, evaluation.model_dump_json(indent=2), _evaluation_file(number))
        digest = content_hash(evaluation.model_dump(mode="json"))
        tracking.client.set_model_version_tag(name, number, EVALUATION_HASH, digest)


def find_version(tracking: Tracking, name: str, which: str | int) -> ModelVersion:
    """The version with this alias or number. Raises ModelError if there is none."""
    version = version_or_none(tracking, name, which)
    if version is None:
        raise ModelError(
            f"no version {which!r}",
            where=f"registered model {name}",
            fix="`dvc repro --force --single-item register` makes a candidate",
        )
    return version


def version_or_none(tracking: Tracking, name: str, which: str | int) -> ModelVersion | None:
    client = tracking.client
    try:
        with told_plainly(tracking.uri, f"look up {name}"):
            if str(which).isdecimal():
                return client.get_model_version(name, str(which))
            return client.get_model_version_by_alias(name, str(which))
    except RefusedError:
        return None


def check_plain_model(folder: Path) -> None:
    """Raise ModelError unless `folder` holds configuration, safetensors weights and a tokenizer, all unwrapped."""
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            "is an adapter, not a whole model",
            where=str(folder),
            fix="merge it first: steptool.training.policy_folder.merge_adapter",
        )
    wanted = {
        "config.json": "configuration",
        "*.safetensors": "weights",
        "tokenizer*.json": "tokenizer",
    }
    if missing := [part for pattern, part in wanted.items() if not any(folder.glob(pattern))]:
        raise ModelError(f"has no {', no '.join(missing)}", where=str(folder), fix="run `dvc repro`, or `dvc pull` it")


def _create_version(
    tracking: Tracking, run: StageRun, name: str, model_dir: Path, lineage: Mapping[str, str]
) -> ModelVersion:
    client = tracking.client
    model = client.create_logged_model(
        tracking.experiment_id, name=re.sub(r"[/:.%\"']", "-", name), source_run_id=run.run_id, tags=dict(lineage)
    )
    try:
        client.log_model_artifacts(model.model_id, str(model_dir))
    except BaseException:
        client.finalize_logged_model(model.model_id, "FAILED")
        raise
    client.finalize_logged_model(model.model_id, "READY")
    if not client.search_registered_models(f"name = '{name}'", max_results=1):
        _create_registered_model(tracking, name)
    tags = {f"{LINEAGE}{key}": value for key, value in lineage.items()}
    return client.create_model_version(
        name, source=f"models:/{model.model_id}", run_id=run.run_id, tags=tags, model_id=model.model_id
    )


def _create_registered_model(tracking: Tracking, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        tracking.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process may have been faster
            raise


def _registered_before(tracking: Tracking, name: str, hashes: Mapping[str, str]) -> ModelVersion | None:
    conditions = " AND ".join([f"name = '{name}'"] + [f"tags.`{key}` = '{value}'" for key, value in hashes.items()])
    found = tracking.client.search_model_versions(conditions, max_results=1, order_by=["version_number DESC"])
    return found[0] if found else None


def _model_id(version: ModelVersion) -> str:
    return str(version.source).removeprefix("models:/")


def _evaluation_file(version: int | str) -> str:
    return f"versions/{version}/evaluation.json"

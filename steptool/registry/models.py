"""Which model is which: versions of a registered model, each with its weights, its evaluation and its lineage.

    artifacts of a version     model/                  a plain model folder (config, safetensors, tokenizer), byte for
                                                       byte as it was evaluated: Transformers and vLLM load it as it is
                               components/tokenizer/   its tokenizer once more, where MLflow's flavour looks for it
                               MLmodel, …              lets `mlflow.transformers` and `mlflow.pyfunc` load the version
    artifacts of its run       versions/<version>/     its evaluation, that of the arm it is compared with where there
                                                       is no champion (its baseline), and the receipts

Adapters are merged first: MLflow's own Transformers flavour saves an adapter on a local base so that loading
it silently re-initialises weights. Versions of earlier releases hold the plain model folder and nothing beside it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import TypeAdapter, ValidationError

from steptool.core.errors import DataError, InputError, ModelError
from steptool.core.fields import ModelName
from steptool.core.storage import PULL, file_hash, parse_record, parse_text, read_text
from steptool.core.types import Frozen, content_hash
from steptool.evaluation.metrics import ALL, METRIC_OF, Evaluation, primary_measure
from steptool.registry.flavour import MODEL, write_flavour
from steptool.tracking.client import mlflow_errors
from steptool.tracking.run import StageRun, Tracking

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

CANDIDATE = "candidate"
CHAMPION = "champion"

MODEL_HASH = "steptool.model_hash"
EVALUATION_HASH = "steptool.evaluation_hash"
"""Tags set last: a version without them was not registered to the end."""
BASELINE_HASH = "steptool.baseline_evaluation_hash"
"""A version that is compared with nothing has none."""
LINEAGE = "lineage."
CANARY = "canary.json"
"""Among the files of a model that was trained here (`steptool.policies.canary`)."""
ARM, POLICY = f"{LINEAGE}arm", f"{LINEAGE}policy"
"""The arm of params.yaml, and name and revision of its policy as it was evaluated."""
NAME = TypeAdapter(ModelName)
EVALUATION, BASELINE = "evaluation.json", "baseline_evaluation.json"
_HASHES = {EVALUATION: EVALUATION_HASH, BASELINE: BASELINE_HASH}


class RegisteredVersion(Frozen):
    name: str
    version: int
    run_id: str
    """The run that registered it; its artifacts under `versions/<version>/` hold evaluations and receipts."""
    model_hash: str
    is_new: bool
    """False where the same weights with the same evaluation were registered before."""


class Registration(RegisteredVersion):
    """The last registration from this folder."""

    arm: str
    lineage: dict[str, str]


def register(
    tracking: Tracking,
    run: StageRun,
    name: str,
    model_dir: Path,
    evaluation: Evaluation,
    lineage: Mapping[str, str],
    *,
    baseline: Evaluation | None,
) -> RegisteredVersion:
    """Register the model in `model_dir` as a version of `name`, with alias `candidate`.

    `baseline` is the evaluation of the arm that it is compared with where there is no champion; without one the gate
    makes no first champion of it. `lineage` says which data, code and seed made it (hashes, annotator, world, …); it
    becomes tags of the version. Registering the same again makes no second version: it mends what was lost or
    damaged of the first. Raises InputError for a name that MLflow cannot hold everywhere, ModelError
    for a folder that is not a whole plain model, TrackingError if MLflow cannot be reached.
    """
    check_name(name)
    check_plain_model(model_dir)
    model_hash, evaluation_hash = file_hash(model_dir), content_hash(evaluation.model_dump(mode="json"))
    hashes = {MODEL_HASH: model_hash, EVALUATION_HASH: evaluation_hash}
    if baseline:
        hashes = {BASELINE_HASH: content_hash(baseline.model_dump(mode="json")), **hashes}
    with mlflow_errors(tracking.uri, f"register {name}"):
        version = _registered_before(tracking, name, model_hash, evaluation_hash)
        is_new = version is None
        if version is None:
            version = _create_version(tracking, run, name, model_dir, lineage, _metrics(evaluation, baseline))
        elif not _is_whole(tracking, version):
            _clear(tracking, version)
            _upload(tracking, _model_id(version), model_dir)
        _describe(tracking, version, evaluation, baseline)
        for key, value in hashes.items():
            tracking.client.set_model_version_tag(name, str(version.version), key, value)
        tracking.client.set_registered_model_alias(name, CANDIDATE, str(version.version))
    return RegisteredVersion(
        name=name, version=int(version.version), run_id=version.run_id, model_hash=model_hash, is_new=is_new
    )


def check_name(name: str) -> None:
    """Raise InputError unless a registered model can have this name, by the rule of tracking.model_name."""
    try:
        NAME.validate_python(name)
    except ValidationError as error:
        found = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(
            f"not the name of a registered model: {found}", where="tracking.model_name", fix="take another name"
        ) from error


def load_registered(tracking: Tracking, name: str, which: str | int = CHAMPION, *, out: Path | None = None) -> Path:
    """The folder of a version's model, to give to `AutoModelForCausalLM.from_pretrained` or to vLLM.

    `which` is an alias or a version number. With `out` the folder is copied or downloaded to there
    (it must not exist); without, it is where the artifacts lie, or a temporary download. Raises
    ModelError if there is no such version, or its files are not those that were registered, or do not compute what
    their trainer did.
    """
    if out is not None and out.exists():
        raise InputError("is already there", where=str(out), fix="name a new folder")
    version = find_version(tracking, name, which)
    if out is None:
        return _checked(tracking, version, None)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as staging:
        _checked(tracking, version, staging).rename(out)
    return out


def _checked(tracking: Tracking, version: ModelVersion, into: str | None) -> Path:
    """The plain folder of a version, if it is what was registered."""
    expected = version.tags.get(MODEL_HASH)
    if expected is None:
        raise ModelError("its registration broke off", where=_called(version), fix=_register_again(version))
    with mlflow_errors(tracking.uri, f"fetch {_called(version)}"):
        folder = _download(tracking, version, into)
    found = f"content {file_hash(folder)}" if folder else "no files"
    if folder is None or found != f"content {expected}":
        raise ModelError(
            f"{found}, but version {version.version} was registered as {expected}",
            where=str(folder or _called(version)),
            fix=_register_again(version),
        )
    if (folder / CANARY).exists():
        from steptool.policies.canary import ask_folder, read_canary  # with PyTorch, which not every caller needs

        ask_folder(folder, read_canary(folder), _dtype(tracking, version))
    return folder


def _dtype(tracking: Tracking, version: ModelVersion) -> Literal["float32", "bfloat16"]:
    """That the version was evaluated in."""
    dtype = load_evaluation(tracking, version).conditions.dtype
    assert dtype is not None, "what is registered has weights"
    return dtype


def _download(tracking: Tracking, version: ModelVersion, into: str | None) -> Path | None:
    """The plain folder among a version's files, unchecked; None where nothing is left of it."""
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    try:
        source = tracking.client.get_logged_model(_model_id(version)).artifact_location
        folder = Path(
            mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=into, tracking_uri=tracking.uri)
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return folder / MODEL if (folder / MODEL).is_dir() else folder


def load_evaluation(tracking: Tracking, version: ModelVersion) -> Evaluation:
    """The evaluation stored with a version. Raises DataError if it is missing, changed or of another schema."""
    return _read_evaluation(tracking, version, EVALUATION, "evaluation")


def load_baseline(tracking: Tracking, version: ModelVersion) -> Evaluation | None:
    """The evaluation of the arm that a version is compared with where there is no champion; None where there is none.

    Raises DataError if it is missing, changed, or of another schema.
    """
    if BASELINE_HASH not in version.tags:
        return None
    return _read_evaluation(tracking, version, BASELINE, "evaluation of its baseline")


def _read_evaluation(tracking: Tracking, version: ModelVersion, name: str, what: str) -> Evaluation:
    if EVALUATION_HASH not in version.tags or not version.run_id:
        raise DataError(
            "was not registered by StepTool to the end",
            where=_called(version),
            fix="give the alias to another version in MLflow, or delete this one there",
        )
    file, fix = _file(version, name), _register_again(version)
    with mlflow_errors(tracking.uri, f"read the {what} of version {version.version}"):
        listed = tracking.client.list_artifacts(version.run_id, str(Path(file).parent))
        if file not in [info.path for info in listed if not info.is_dir]:
            raise DataError(f"holds no {what}", where=_called(version), fix=fix)
        with tempfile.TemporaryDirectory() as folder:
            stored = read_text(Path(tracking.client.download_artifacts(version.run_id, file, folder)))
    where = f"{_called(version)}, its {what}"
    value = parse_text(stored, where, fix=fix)
    evaluation = parse_record(value, Evaluation, where=where, fix=fix)
    if content_hash(value) != version.tags.get(_HASHES[name], content_hash(value)):
        raise DataError("is not the one that was registered: the file was changed since", where=where, fix=fix)
    try:
        evaluation.pass_rate, evaluation.finish_rate  # noqa: B018  a KeyError if it lacks them
    except KeyError as error:
        raise DataError(f"lacks {error}", where=where, fix=fix) from error
    return evaluation


def attach_evaluation(tracking: Tracking, name: str, which: str | int, evaluation: Evaluation) -> None:
    """Replace the evaluation of a version, say by one under the conditions of today's candidates.

    Raises ModelError unless it is of the policy that the version's own evaluation, or its lineage, names.
    """
    version = find_version(tracking, name, which)
    try:
        policy = load_evaluation(tracking, version).policy
        known = f"{policy.name} {policy.revision}"
    except DataError:  # of another release
        known = version.tags.get(POLICY, "unknown")
    if f"{evaluation.policy.name} {evaluation.policy.revision}" != known:
        raise ModelError(
            f"the evaluation is of {evaluation.policy}, the version is {known}",
            where=_called(version),
            fix="evaluate the model of this version: fetch it with `load_registered`",
        )
    with mlflow_errors(tracking.uri, "attach the evaluation"):
        tracking.client.log_text(version.run_id, evaluation.model_dump_json(indent=2), _file(version, EVALUATION))
        digest = content_hash(evaluation.model_dump(mode="json"))
        tracking.client.set_model_version_tag(name, str(version.version), EVALUATION_HASH, digest)


def find_version(tracking: Tracking, name: str, which: str | int) -> ModelVersion:
    """The version with this alias or number. Raises ModelError if there is none."""
    version = version_or_none(tracking, name, which)
    if version is None:
        fix = _MAKES.get(str(which), "name a version that MLflow's pages show, or an alias: candidate, champion")
        if str(which) in _MAKES and version_or_none(tracking, name, 1) is None:
            fix = _MAKES_THE_FIRST
        raise ModelError(f"no version {which!r}", where=f"registered model {name}", fix=fix)
    return version


_MAKES_THE_FIRST = "`steptool run` trains, measures and registers one; then `steptool promote` makes it the champion"
_MAKES = {
    CANDIDATE: "`steptool register` makes one of an arm that was evaluated",
    CHAMPION: "`steptool promote` makes one of the candidate; `chat` and `serve-model` take an arm, too: --policy NAME",
}


def version_or_none(tracking: Tracking, name: str, which: str | int) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    check_name(name)
    with mlflow_errors(tracking.uri, f"look up {name}"):
        try:
            number = str(which)
            if not number.isdecimal():
                number = str(tracking.client.get_registered_model(name).aliases.get(number, ""))
            return tracking.client.get_model_version(name, number) if number else None
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None


def check_plain_model(folder: Path) -> None:
    """Raise ModelError unless `folder` holds configuration, safetensors weights and a tokenizer, all unwrapped."""
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            "is an adapter, not a whole model",
            where=str(folder),
            fix="merge it first: steptool.policies.folder.merge_adapter",
        )
    wanted = {
        "config.json": "configuration",
        "*.safetensors": "weights",
        "tokenizer*.json": "tokenizer",
    }
    if missing := [part for pattern, part in wanted.items() if not any(folder.glob(pattern))]:
        raise ModelError(f"has no {', no '.join(missing)}", where=str(folder), fix=PULL)


def _create_version(
    tracking: Tracking,
    run: StageRun,
    name: str,
    model_dir: Path,
    lineage: Mapping[str, str],
    metrics: Mapping[str, float],
) -> ModelVersion:
    client = tracking.client
    model = client.create_logged_model(
        tracking.experiment_id, name=name.replace(".", "-"), source_run_id=run.run_id, tags=dict(lineage)
    )
    try:
        _upload(tracking, model.model_id, model_dir)
        for key, value in metrics.items():
            client.log_metric(run.run_id, key, value, model_id=model.model_id)
    except BaseException:
        client.finalize_logged_model(model.model_id, "FAILED")
        raise
    client.finalize_logged_model(model.model_id, "READY")
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
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _upload(tracking: Tracking, model_id: str, model_dir: Path) -> None:
    """The files of a version; MLmodel comes last."""
    tracking.client.log_model_artifacts(model_id, str(model_dir), MODEL)
    with tempfile.TemporaryDirectory() as folder:
        write_flavour(Path(folder), model_dir, model_id)
        tracking.client.log_model_artifacts(model_id, folder)
    _open_to_readers(tracking.client.get_logged_model(model_id).artifact_location)


def _open_to_readers(location: str) -> None:
    """Give files in a local store the mode of any other new file: safetensors writes weights that only their owner
    may read, and MLflow copies the mode."""
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import is_local_uri

    if not is_local_uri(location):
        return
    mask = os.umask(0)
    os.umask(mask)
    for path in Path(local_file_uri_to_path(location)).rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def _is_whole(tracking: Tracking, version: ModelVersion) -> bool:
    with tempfile.TemporaryDirectory() as into:
        folder = _download(tracking, version, into)
        return folder is not None and file_hash(folder) == version.tags[MODEL_HASH]


def _clear(tracking: Tracking, version: ModelVersion) -> None:
    """Remove the files of a version, those too that somebody put beside ours."""
    location = tracking.client.get_logged_model(_model_id(version)).artifact_location
    artifacts_at(tracking, location).delete_artifacts()


def artifacts_at(tracking: Tracking, location: str) -> ArtifactRepository:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(location, tracking_uri=tracking.uri)


def _describe(tracking: Tracking, version: ModelVersion, evaluation: Evaluation, baseline: Evaluation | None) -> None:
    """What a version says of itself, in MLflow's pages and to the gate."""
    tracking.client.log_text(version.run_id, evaluation.model_dump_json(indent=2), _file(version, EVALUATION))
    measure = primary_measure([evaluation, *([baseline] if baseline else [])])
    what = "pass rate" if measure == "solved" else "grounded answers"
    rate = evaluation.rate(measure) or 0.0
    said = f"{evaluation.name}: {what} {rate:.1%}, finish rate {evaluation.finish_rate:.1%}"
    if baseline:
        tracking.client.log_text(version.run_id, baseline.model_dump_json(indent=2), _file(version, BASELINE))
        said += f", {rate - (baseline.rate(measure) or 0.0):+.1%} against {baseline.name}"
    elif BASELINE_HASH in version.tags:  # of an earlier registration
        tracking.client.delete_model_version_tag(version.name, str(version.version), BASELINE_HASH)
    world = evaluation.conditions.world.name
    tasks = len(evaluation.solved)
    known = "" if evaluation.verdicts == tasks else f", of which {evaluation.verdicts} have a verdict"
    said += f"; {tasks} {evaluation.split} tasks of the world {world}{known}"
    tracking.client.update_model_version(version.name, str(version.version), said)


def _metrics(evaluation: Evaluation, baseline: Evaluation | None) -> dict[str, float]:
    rates = {"finish_rate": evaluation.finish_rate}
    for metric in METRIC_OF.values():
        ours = evaluation.metrics[ALL][metric].value
        theirs = baseline.metrics[ALL][metric].value if baseline else None
        rates |= {metric: ours} if ours is not None else {}
        rates |= {f"{metric}_difference": ours - theirs} if ours is not None and theirs is not None else {}
    return rates


def _registered_before(tracking: Tracking, name: str, model_hash: str, evaluation_hash: str) -> ModelVersion | None:
    """The newest version of this content whose model and run MLflow still has.

    A version of this model whose evaluation cannot be read counts too: `register` mends it.
    """
    from mlflow.exceptions import MlflowException

    condition = f"name = '{name}' AND tags.`{MODEL_HASH}` = '{model_hash}'"
    for version in tracking.client.search_model_versions(condition, order_by=["version_number DESC"]):
        try:
            tracking.client.get_logged_model(_model_id(version))
            tracking.client.get_run(version.run_id)
            if version.tags.get(EVALUATION_HASH) == evaluation_hash or not _has_evaluation(tracking, version):
                return version
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    return None


def _has_evaluation(tracking: Tracking, version: ModelVersion) -> bool:
    try:
        load_evaluation(tracking, version)
    except DataError:
        return False
    return True


def _model_id(version: ModelVersion) -> str:
    return str(version.source).removeprefix("models:/")


def _file(version: ModelVersion, name: str) -> str:
    return f"versions/{version.version}/{name}"


def _called(version: ModelVersion) -> str:
    return f"{version.name} version {version.version}"


def _register_again(version: ModelVersion) -> str:
    """What mends a version of which something is lost or damaged."""
    arm, policy = version.tags.get(ARM, "ARM"), version.tags.get(POLICY, "its model")
    return f"register it again, where {policy} lies: `steptool register {arm}`"

"""Which policy is meant: `ppo2` (an arm), `models/ppo2` (a folder), `@champion` or `@3` (a version of the registry)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from steptool.config.arms import arm_of
from steptool.config.places import EVALUATION, MODELS
from steptool.config.settings import Params
from steptool.core.errors import DataError, InputError, ModelError
from steptool.core.storage import file_hash, read_json, read_record
from steptool.evaluation.metrics import Evaluation
from steptool.policies.folder import ResolvedPolicy, resolve_policy


@dataclass(frozen=True)
class Named:
    """A policy that was found."""

    name: str
    """What clients call it."""
    folder: Path
    resolved: ResolvedPolicy
    evaluation: Evaluation | None
    """Of these very weights, where there is one."""
    lineage: dict[str, str]
    """What it was made from, name and hash, as far as it is known."""
    aliases: tuple[str, ...] = ()
    """What else clients may call it."""


def find(params: Params, wanted: str, base: Path | None = None) -> Named:
    """Raises InputError, ModelError or ParamsError where there is no such policy, or a part of it is missing."""
    if wanted.startswith("@"):
        return _registered(params, wanted[1:])
    folder, name = Path(wanted), Path(wanted).resolve().name
    if os.sep not in wanted and wanted in params.arms:
        folder, name = arm_of(params, wanted).weights, wanted
        if not folder.is_dir():
            fix = "`steptool run` trains it; `dvc pull` fetches it where somebody has"
            raise ModelError("has not been trained yet: no such folder", where=str(folder), fix=fix)
    elif not folder.is_dir():
        raise InputError(
            f"no such policy; arms are {', '.join(params.arms) or 'none'}",
            where=wanted,
            fix="name an arm, a policy's folder, or @champion",
        )
    return Named(name, folder, resolve_policy(folder, base), _evaluation(folder, name), _inputs(folder))


def _registered(params: Params, which: str) -> Named:
    from steptool.registry.models import LINEAGE, find_version, load_evaluation, load_registered, version_or_none
    from steptool.tracking.run import Tracking

    tracking, name = Tracking(None, params.tracking.experiment), params.tracking.model_name
    weights = [arm_of(params, arm).weights for arm, how in params.arms.items() if not how.endpoint]
    if version_or_none(tracking, name, which) is None and not any(folder.is_dir() for folder in weights):
        raise ModelError(
            "no policy is registered, and none is trained",
            where=f"registered model {name}",
            fix="`steptool run` trains, evaluates and registers one; then name an arm with --policy, or promote it",
        )
    version = find_version(tracking, name, which)
    folder = load_registered(tracking, name, which)
    lineage = {key.removeprefix(LINEAGE): value for key, value in version.tags.items() if key.startswith(LINEAGE)}
    lineage |= {"registered as": f"{name} version {version.version}"}
    return Named(name, folder, resolve_policy(folder), load_evaluation(tracking, version), lineage, (which,))


def _evaluation(folder: Path, arm: str) -> Evaluation | None:
    """That of the arm, if it is of the weights in the folder."""
    path = EVALUATION / f"{arm}.json"
    if not path.exists() or folder.resolve().parent != MODELS.resolve():
        return None
    try:
        evaluation = read_record(path, Evaluation)
    except DataError:  # of another release
        return None
    return evaluation if evaluation.policy.revision == file_hash(folder) else None


def _inputs(folder: Path) -> dict[str, str]:
    """What the stage that wrote a folder read."""
    path = folder / "manifest.json"
    written = read_json(path) if path.exists() else {}
    if not isinstance(written, dict):
        return {}
    inputs, params = written.get("inputs"), written.get("params")
    method = params.get("method") if isinstance(params, dict) else None
    found = {"method": str(method["use"])} if isinstance(method, dict) and "use" in method else {}
    return found | ({key: str(value) for key, value in inputs.items()} if isinstance(inputs, dict) else {})

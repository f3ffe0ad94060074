"""Stage `revisions`: what the stages depend on and DVC cannot see by itself, one file a stage.

    code       what the stage's code means, and that of the plugins that it uses
    settings   its settings, their defaults included
    content    files outside of the project: a folder or a hub model of `model.base`, recordings, tasks, demonstrations

DVC runs it each time, and each stage reads its file. It is the first of the graph: where the command `steptool` cannot
be found, dvc.yaml is not what params.yaml asks for, or a method refuses its settings, it ends `dvc repro` before DVC
has removed the output of any other stage.
"""

from __future__ import annotations

from typing import Any

from steptool.config.arms import arms_of, check_method
from steptool.config.graph import StageSpec, stages_of
from steptool.config.lineage import refuse_unless_written, stage_revision
from steptool.config.places import PARAMS
from steptool.config.settings import load_params
from steptool.core.errors import DataError
from steptool.core.storage import read_json, write_json


def main() -> None:
    params = load_params(PARAMS)
    refuse_unless_written(params)
    specs = stages_of(params)
    noted = {address: _noted(spec) for address, spec in specs.items()}
    found = {address: stage_revision(spec, params) for address, spec in specs.items()}
    for arm in arms_of(params):  # importing a method takes seconds, so settings that were checked before are not again
        address = f"train-{arm.name}"
        if arm.method and found[address]["settings"] != noted[address].get("settings"):
            check_method(arm)
    for address, revision in found.items():
        revision["content"] = _filled(revision, noted[address])
        write_json(specs[address].revision, revision)
    outside = {name: text for revision in found.values() for name, text in revision["content"].items()}
    print("revisions: " + (", ".join(f"{name} {text}" for name, text in outside.items()) or "all noted"), flush=True)


def _noted(spec: StageSpec) -> dict[str, Any]:
    """What was found last time; nothing the first time, and where the file is damaged: it is written anew."""
    try:
        known = read_json(spec.revision)
    except DataError:
        return {}
    return known if isinstance(known, dict) else {}


def _filled(revision: dict[str, Any], noted: dict[str, Any]) -> dict[str, str]:
    """Its content; what cannot be known now, of a hub that cannot be reached, is what was noted for these settings."""
    known = noted.get("content") if noted.get("settings") == revision["settings"] else None
    known = known if isinstance(known, dict) else {}
    return {name: text or known.get(name) or "not found yet" for name, text in revision["content"].items()}

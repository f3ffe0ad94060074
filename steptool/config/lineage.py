"""Whether what a stage read is what DVC records of it.

DVC hashes a stage's dependencies and reads its settings once more when the stage has ended, and writes these into
dvc.lock. What was changed meanwhile would then stand there as the origin of an output that was made of the old.

    start of a stage     `Reading` notes the settings, code and inputs that dvc.yaml names for it
    before its output    `Reading.check` ends the stage where one of them is another now
    afterwards           `disagreements` compares dvc.lock with the manifests inside the outputs
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from steptool.config.graph import StageSpec, dvc_document, dvc_text, stages_of
from steptool.config.places import PARAMS
from steptool.config.settings import Params, load_params
from steptool.core.errors import DataError, InputError, ParamsError, StepToolError, reason
from steptool.core.revision import MEANS_NOTHING, code_revision, forget_sources
from steptool.core.storage import MANIFEST, MAX_DOCUMENT, conflict_line, file_hash, read_bounded, read_json, write_bytes
from steptool.core.types import content_hash

PIPELINE, LOCK = Path("dvc.yaml"), Path("dvc.lock")
DVC_STAGE = "DVC_STAGE"
"""DVC sets it for the command of a stage."""
RESTORE = "mend it, or restore the committed one: git checkout {}"
REWRITTEN_S = 0.2
"""DVC rewrites its files in place, so one that is broken may be whole a moment later."""
AGAIN = "run the same command again"
Signature = tuple[tuple[str, int, int, int], ...]


def stage_code(spec: StageSpec) -> str:
    """Hash of what the code of a stage means: its module, the plugins that it uses, and all that these import."""
    modules = [f"steptool.stages.{spec.verb}", *(module for used in spec.plugins for module in used.modules())]
    return code_revision(modules, without=MEANS_NOTHING)


def stage_revision(spec: StageSpec, params: Params) -> dict[str, Any]:
    """What decides about the output of a stage beside its inputs: its code, its settings with their defaults, as
    hashes, and the content of what lies outside of the project, by the plugin that reads it (None: it cannot be known
    now).

    Raises DataError where such a file cannot be read.
    """
    values = params.model_dump(mode="json", by_alias=True)
    settings = {key: _at(values, key) for key in spec.keys}
    hashed = content_hash([settings, spec.decided])
    return {"code": stage_code(spec), "settings": hashed, "content": _content(spec)}


def _content(spec: StageSpec) -> dict[str, str | None]:
    read: dict[str, list[str]] = {}
    for used in spec.plugins:  # of one kind there may be several, such as metrics
        if found := used.content():
            read.setdefault(used.kind, []).append(found)
    content: dict[str, str | None] = {kind: ", ".join(found) for kind, found in read.items()}
    return content if spec.content is None else {**content, spec.verb: spec.content()}


def spec_of(params: Params, verb: str, argument: str | None) -> StageSpec:
    """The stage of the graph that params.yaml asks for. Raises ParamsError where there is none."""
    specs = stages_of(params)
    address = f"{verb}-{argument}" if argument else verb
    if address not in specs:
        found = f"its graph has no stage {address}"
        raise ParamsError(found, where=str(PARAMS), fix=f"name one of {', '.join(specs)}")
    return specs[address]


def refuse_unless_written(params: Params) -> None:
    """Raise ParamsError where dvc.yaml is not the graph that params.yaml asks for."""
    existing = read_yaml(PIPELINE)
    if existing != dvc_document(params, existing):
        found = f"is not the graph that {PARAMS} asks for"
        raise ParamsError(found, where=str(PIPELINE), fix="steptool graph")


def write_graph() -> str:
    """Write dvc.yaml where it is not the graph that params.yaml asks for; what was done, in a sentence."""
    params = load_params(PARAMS)
    existing = read_yaml(PIPELINE)
    document = dvc_document(params, existing)
    if existing == document:
        return f"{PIPELINE} is the graph that {PARAMS} asks for"
    write_bytes(PIPELINE, dvc_text(document).encode())
    return f"{PIPELINE} is written anew: {', '.join(document['stages'])}"


class File(BaseModel):
    """A file or folder, with DVC's hash of its content where it has one."""

    path: str
    md5: str | None = None


class Entry(BaseModel):
    """A stage's entry in dvc.lock, as far as anything here reads it."""

    params: dict[str, dict[str, Any]] = {}
    deps: list[File] = []
    outs: list[File] = []


class LockFile(BaseModel):
    stages: dict[str, Entry] = {}


class Reading:
    """What a stage reads, as it is now. `inputs`: files and folders with their digests by `file_hash`.

    Raises DataError where DVC runs it, and its code or what lies outside of the project is not what stage `revisions`
    noted.
    """

    def __init__(self, spec: StageSpec, params: Params, inputs: Mapping[Path, str]) -> None:
        self._spec, self._inputs = spec, dict(inputs)
        self._signatures = {path: _signature(path) for path in inputs}
        self.settings = _settings(spec.keys)
        """The values in params.yaml of what dvc.yaml lists under the stage's `params`."""
        self._revision = stage_revision(spec, params)
        noted = read_json(spec.revision) if spec.revision.exists() else None  # one that is run by itself finds none
        noted = _mapping(noted)
        if DVC_STAGE in os.environ:  # a stage that is run by hand is not recorded
            self._refuse_unless(noted, "code", self._revision["code"])
        known = _mapping(noted.get("content"))
        for name, content in self._revision["content"].items():
            if content is not None and name in known:
                self._refuse_unless(known, name, content)
        self.external = {name: found or known.get(name) for name, found in self._revision["content"].items()}
        """The content of what lies outside of the project."""

    def _refuse_unless(self, noted: Mapping[str, Any], what: str, now: str) -> None:
        if what in noted and noted[what] != now:
            raise DataError(
                f"says {what} {noted[what]!r}, but here it is now {now!r}",
                where=str(self._spec.revision),
                fix="run `dvc repro`, which reads it again; another machine needs the same files and the same code",
            )

    def check(self) -> None:
        """Raise StepToolError where something is not as it was."""
        now = _settings(self._spec.keys)
        changed = [f"{PARAMS}: {key}" for key in self._spec.keys if self.settings.get(key) != now.get(key)]
        forget_sources()
        changed += ["the code that it runs"] if stage_code(self._spec) != self._revision["code"] else []
        changed += [str(path) for path, digest in self._inputs.items() if self._is_other(path, digest)]
        now_outside = {name: found for name, found in _content(self._spec).items() if found is not None}
        changed += [f"what {name} reads" for name, found in now_outside.items() if found != self.external.get(name)]
        if changed:
            raise StepToolError(
                f"changed while the stage ran: {', '.join(changed)}; its output does not count",
                where=f"stage {self._spec.address}",
                fix=AGAIN,
            )

    def _is_other(self, path: Path, digest: str) -> bool:
        if _signature(path) == self._signatures[path]:
            return False
        return not path.exists() or file_hash(path) != digest


def disagreements(entries: Mapping[str, Entry], root: Path = Path()) -> dict[str, list[str]]:
    """Settings that `entries`, of dvc.lock, and the manifests of the outputs do not agree about, by the stage."""
    found = {}
    for address, entry in entries.items():
        recorded = entry.params.get(str(PARAMS), {})
        for out in entry.outs:
            made_with = _made_with(root / out.path / MANIFEST)
            if made_with is not None and made_with != recorded:
                keys = sorted(made_with.keys() | recorded.keys())
                found[address] = [key for key in keys if made_with.get(key) != recorded.get(key)]
    return found


def refuse_false_lineage(entries: Mapping[str, Entry], root: Path = Path()) -> None:
    """Raise StepToolError where dvc.lock says that an output was made with settings that it was not made with."""
    for address, keys in disagreements(entries, root).items():
        raise StepToolError(
            f"dvc.lock and the output disagree about {', '.join(keys)}, which changed as the stage ended",
            where=f"stage {address}",
            fix=f"dvc repro --force --single-item {address}",
        )


def check_state(root: Path = Path()) -> None:
    """Raise InputError where this is no repository, or where a file of DVC's own keeps it from working."""
    from dvc.rwlock import SCHEMA as RWLOCK
    from voluptuous import Invalid

    if not (root / ".dvc").is_dir():
        raise InputError(
            "no DVC repository", where=str(root.absolute()), fix="change to the folder that holds .dvc and dvc.yaml"
        )
    rwlock = root / ".dvc" / "tmp" / "rwlock"
    for last in (False, False, False, True):
        try:
            read_lock(root)
            if rwlock.exists():
                RWLOCK(json.loads(rwlock.read_text(encoding="utf-8")))
            return
        except ParamsError:
            if last:
                raise
        except (OSError, ValueError, RecursionError, Invalid) as error:
            if last:
                raise InputError(
                    "damaged, as a machine that went down leaves it; DVC notes there who reads and writes what",
                    where=str(rwlock),
                    fix=f"rm -r {rwlock}",
                ) from error
        time.sleep(REWRITTEN_S)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _made_with(manifest: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # not there, or damaged: DVC sees that by itself
    settings = document.get("settings") if isinstance(document, dict) else None
    return settings if isinstance(settings, dict) else None


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def read_lock(root: Path = Path()) -> LockFile:
    """Raises ParamsError where dvc.lock is not what DVC writes."""
    path = root / LOCK
    document = read_yaml(path)
    try:
        return LockFile() if document is None else LockFile.model_validate(document)
    except ValidationError as error:
        raise ParamsError(_not_dvcs(error), where=str(path), fix=RESTORE.format(path)) from error


def _not_dvcs(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    found = first["msg"].partition(" or instance of ")[0]
    return f"not what DVC reads: {f'{place}: ' if place else ''}{found}"


def read_yaml(path: Path) -> Any:
    """None where there is no such file. Raises ParamsError where it is not YAML, as after a merge with conflicts."""
    if not path.exists():
        return None
    try:
        text = read_bounded(path, MAX_DOCUMENT).decode()
        if line := conflict_line(text):
            fix = f"mend the conflict, or take one side, as with `git checkout --ours {path}`"
            raise ParamsError("a mark of a merge conflict", where=f"{path}:{line}", fix=fix)
        return YAML(typ="safe").load(text)
    except ParamsError:  # a ValueError, too
        raise
    except OSError as error:
        found, fix = f"cannot be read: {error.strerror or error}", f"move it away, then {RESTORE.format(path)}"
        raise ParamsError(found, where=str(path), fix=fix) from error
    # ruamel passes on what Python raises, such as ValueError for the date 2024-99-99.
    except (YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        found = f"not YAML: {getattr(error, 'problem', None) or reason(error)}"
        raise ParamsError(found, where=str(path), fix=RESTORE.format(path)) from error


def _settings(keys: Sequence[str]) -> dict[str, Any]:
    """Values of params.yaml by dotted key, those that stand in it; as DVC notes them."""
    document = read_yaml(PARAMS) if keys else None
    return {key: value for key in keys if (value := _at(document, key)) is not None}


def _files(place: Path) -> Iterator[Path]:
    """The file, or those of the folder, without what .dvcignore leaves out."""
    if place.is_file():
        yield place
    for file in sorted(place.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts and file.suffix not in (".pyc", ".tmp"):
            yield file


def _signature(path: Path) -> Signature:
    """What changes when a file does, without reading it."""
    found = []
    for file in _files(path):
        status = file.stat()
        found.append((str(file), status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(found)

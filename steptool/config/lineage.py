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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from steptool.config.places import CODE, PARAMS
from steptool.config.settings import Params
from steptool.core.errors import DataError, InputError, ParamsError, StepToolError, reason
from steptool.core.revision import MEANS_NOTHING, code_revision, forget_sources
from steptool.core.storage import MANIFEST, MAX_DOCUMENT, conflict_line, file_hash, read_bounded, read_json
from steptool.core.types import content_hash

PIPELINE, LOCK = Path("dvc.yaml"), Path("dvc.lock")
DVC_STAGE = "DVC_STAGE"
"""DVC sets it for the command of a stage."""
RESTORE = "mend it, or restore the committed one: git checkout {}"
REWRITTEN_S = 0.2
"""DVC rewrites its files in place, so one that is broken may be whole a moment later."""
AGAIN = "run the same command again"
Signature = tuple[tuple[str, int, int, int], ...]


def stage_code(name: str) -> str:
    """Hash of what the code of stage `name` means. The command line asks before it imports the stage, so that this is
    the code that runs."""
    return code_revision([f"steptool.stages.{name}"], without=MEANS_NOTHING)


def stage_revision(name: str, params: Params) -> dict[str, str]:
    """What decides about the output of stage `name` beside its inputs: its code, and the settings that dvc.yaml lists
    for it, their defaults included. As hashes."""
    values = params.model_dump(mode="json", by_alias=True)
    settings = {key: _at(values, key) for key in _settings_of(name)}
    return {"code": stage_code(name), "settings": content_hash(settings)}


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


class _Declared(BaseModel):
    """Of a stage in dvc.yaml, what is read here."""

    deps: list[Any] = []
    params: list[Any] = []


class _PipelineFile(BaseModel):
    stages: dict[str, dict[str, Any]] = {}


class Reading:
    """What the stage `name` (of round `round`) reads, as it is now.

    `inputs`: files and folders with their digests by `file_hash`. `external`: what lies outside of the repository, by
    the file in which stage `revisions` noted its content, with a function that finds the content (None: it cannot).
    Raises DataError where something outside, or under DVC the code, is not what was noted.
    """

    def __init__(
        self,
        name: str,
        round: str | None,
        inputs: Mapping[Path, str],
        external: Mapping[Path, Callable[[], str | None]],
    ) -> None:
        self._inputs = dict(inputs)
        self._signatures = {path: _signature(path) for path in inputs}
        self._name = name
        self._keys = _settings_of(name)
        self.settings = _settings(self._keys)
        """The values in params.yaml of what dvc.yaml lists under the stage's `params`."""
        self._label = f"{name} {round}" if round else name
        self._code = stage_code(name)
        if DVC_STAGE in os.environ:  # a stage that is run by hand is not recorded
            _as_noted(CODE / f"{name}.json", self._code, "code")
        self._find = dict(external)
        self.external = {path.stem: _as_noted(path, find()) for path, find in external.items()}
        """The content of what lies outside of the repository."""

    def check(self) -> None:
        """Raise StepToolError where something is not as it was."""
        now = _settings(self._keys)
        changed = [f"{PARAMS}: {key}" for key in self._keys if self.settings.get(key) != now.get(key)]
        forget_sources()
        changed += ["the code that it runs"] if stage_code(self._name) != self._code else []
        changed += [str(path) for path, digest in self._inputs.items() if self._is_other(path, digest)]
        contents = {path: find() for path, find in self._find.items()}
        changed += [f"what {path} describes" for path, content in contents.items() if self._is_new(path, content)]
        if changed:
            raise StepToolError(
                f"changed while the stage ran: {', '.join(changed)}; its output does not count",
                where=f"stage {self._label}",
                fix=AGAIN,
            )

    def _is_new(self, path: Path, content: str | None) -> bool:
        return content is not None and content != self.external[path.stem]

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


def _as_noted(path: Path, content: str | None, what: str = "content") -> str:
    noted = read_json(path) if path.exists() else None  # a stage that is run by itself finds none
    known = noted.get(what) if isinstance(noted, dict) else None
    if content is not None and known is not None and content != known:
        raise DataError(
            f"says {known!r}, but here it is now {content!r}",
            where=str(path),
            fix="run `dvc repro`, which reads it again; another machine needs the same files and the same code",
        )
    return content or str(known)


def _made_with(manifest: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # not there, or damaged: DVC sees that by itself
    settings = document.get("settings") if isinstance(document, dict) else None
    return settings if isinstance(settings, dict) else None


def stages_with_code() -> list[str]:
    """Names of the stages of dvc.yaml that depend on what their code means."""
    return [name for name, stage in _declared().items() if (CODE / f"{name}.json").as_posix() in stage.deps]


def _settings_of(name: str) -> list[str]:
    """The settings that dvc.yaml names for the stage; nothing where there is no such stage."""
    return [key for key in _declared().get(name, _Declared()).params if isinstance(key, str)]


def _declared() -> dict[str, _Declared]:
    """The stages of dvc.yaml by name; one made by foreach counts once. Raises ParamsError for another shape."""
    document = read_yaml(PIPELINE)
    try:
        stages = _PipelineFile.model_validate({} if document is None else document).stages
        return {name: _Declared.model_validate(stage.get("do", stage)) for name, stage in stages.items()}
    except ValidationError as error:
        raise ParamsError(_not_dvcs(error), where=str(PIPELINE), fix=RESTORE.format(PIPELINE)) from error


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


def _settings(keys: list[str]) -> dict[str, Any]:
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

"""Files in and out: JSONL (optionally gzipped), JSON, and whole output folders, each written atomically.

A stage writes into `output_folder(path, determines)`: a temporary sibling that is fsynced, gets a
`manifest.json` of what determines it, and is renamed into place only when the stage succeeded.
Nothing half-written ever has the final name, and the same input gives the same bytes.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from steptool import __version__
from steptool.errors import DataError, StorageError

SCHEMA_VERSION = 1
"""Raised when a stored record changes meaning; readers refuse other versions."""

MANIFEST = "manifest.json"
Record = TypeVar("Record", bound=BaseModel)
WRITTEN_OTHERWISE = "run `dvc repro`: another version of StepTool may have written it"


@contextmanager
def _saying_where(path: Path) -> Iterator[None]:
    """Turn an OSError while writing into a StorageError that names the path."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"cannot write: {error.strerror or error}",
            where=str(path),
            fix=f"{_way_out(error, path)}, then run the same command again; no old output is lost",
        ) from error


def _way_out(error: OSError, path: Path) -> str:
    """What to do about an OSError while `path` was written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"make {path.parent} writable, and {path} where it exists"
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY, errno.ELOOP):
        blocked = (place for place in (*reversed(path.parents), path) if os.path.lexists(place))
        wrong = next((place for place in blocked if not place.is_dir()), path)
        if wrong.is_symlink():
            return f"make the folder that the link {wrong} points to, or remove the link"
        return f"move {wrong} away, which is in the way"
    return "free some space or mend the permissions"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: temporary name, fsync, rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    with _saying_where(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _fsync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Indented JSON with sorted keys. Raises ValueError on NaN or infinity."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"not JSON: {error.msg}", where=f"{path}:{error.lineno}", fix=f"delete {path} and run `dvc repro` again"
        ) from error


def read_record(path: Path, model: type[Record]) -> Record:
    """Read one record that `write_json` wrote. Raises DataError for what is missing, broken or of another schema."""
    return parse_record(read_json(path), model, where=str(path), fix=WRITTEN_OTHERWISE)


def parse_record(value: Any, model: type[Record], *, where: str, fix: str) -> Record:
    """`value` as a record. Raises DataError that names the first field which breaks an invariant of `model`."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        name = value.get("id") if isinstance(value, dict) else None
        raise DataError(
            f"{model.__name__}{f' {name}' if name else ''}: {f'{place}: ' if place else ''}{first['msg']}",
            where=where,
            fix=fix,
        ) from error


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError("no such file", where=str(path), fix="run `dvc repro`, or `dvc pull` it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot be read: {error}", where=str(path), fix=f"restore it: dvc checkout --force {path}"
        ) from error


def dumps(record: BaseModel) -> str:
    """One record as one line of JSON: fields in their declared order, no spaces."""
    return json.dumps(record.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> int:
    """Write records, one a line, after a header line with the schema version; returns how many.

    A name that ends in .gz is compressed, with no time stamp in it: same records, same bytes.
    """
    buffer = io.BytesIO()
    count = 0
    kind = ""
    lines = io.StringIO()
    for record in records:
        kind = kind or type(record).__name__
        lines.write(dumps(record) + "\n")
        count += 1
    text = json.dumps({"schema_version": SCHEMA_VERSION, "kind": kind, "rows": count}) + "\n" + lines.getvalue()
    if path.suffix == ".gz":
        with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, compresslevel=6) as stream:
            stream.write(text.encode())
        write_bytes(path, buffer.getvalue())
    else:
        write_bytes(path, text.encode())
    return count


def read_jsonl(path: Path, model: type[Record]) -> list[Record]:
    """Read what `write_jsonl` wrote.

    Raises DataError naming file and line for a missing file, another schema version, a truncated
    file, a line that is not JSON, and a record that breaks an invariant of `model`.
    """
    again = f"restore it: dvc checkout --force {path}"
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    except FileNotFoundError as error:
        raise DataError("no such file", where=str(path), fix="run `dvc repro`, or `dvc pull` it") from error
    except (OSError, EOFError, zlib.error, ValueError) as error:  # UnicodeDecodeError is a ValueError
        raise DataError(f"cannot be read: {error}", where=str(path), fix=again) from error
    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    elif lines:
        raise DataError("the last line is cut off", where=f"{path}:{len(lines)}", fix=again)
    header = _parse_line(path, 1, lines[0] if lines else "", again)
    if not isinstance(header, dict) or header.get("schema_version") != SCHEMA_VERSION:
        found = header.get("schema_version") if isinstance(header, dict) else None
        raise DataError(f"schema version {found!r}, expected {SCHEMA_VERSION}", where=f"{path}:1", fix=again)
    if not {"kind", "rows"} <= header.keys():
        raise DataError("its first line names no kind and rows", where=f"{path}:1", fix=again)
    if header["rows"] != len(lines) - 1:
        raise DataError(
            f"{len(lines) - 1} rows, but its first line says {header['rows']}", where=f"{path}:{len(lines)}", fix=again
        )
    if header["rows"] and header["kind"] != model.__name__:
        raise DataError(f"holds {header['kind']} records, expected {model.__name__}", where=f"{path}:1", fix=again)
    records = []
    for number, line in enumerate(lines[1:], start=2):
        value = _parse_line(path, number, line, again)
        records.append(parse_record(value, model, where=f"{path}:{number}", fix=again))
    return records


def _parse_line(path: Path, number: int, line: str, fix: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg} at column {error.colno}", where=f"{path}:{number}", fix=fix) from error


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of a folder's relative names and contents (manifests included), 16 hex digits."""
    digest = hashlib.sha256()
    if not path.exists():
        raise DataError("no such file or folder", where=str(path), fix="run `dvc repro`, or `dvc pull` it")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        digest.update(str(file.relative_to(path)).encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def manifest(stage: str, params: Any, inputs: dict[str, Path], seed: int) -> dict[str, Any]:
    """What determines a stage's output. Holds nothing that changes from run to run."""
    return {
        "stage": stage,
        "params": params,
        "inputs": {name: file_hash(path) for name, path in sorted(inputs.items())},
        "schema_version": SCHEMA_VERSION,
        "code_version": __version__,
        "seed": seed,
    }


@contextmanager
def output_folder(path: Path, determines: dict[str, Any]) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well, and vanishes when it does not.

    Whatever has the name `path` already is replaced as the last act: a folder, a file, or a link, whose target stays
    as it is. A link among the parents is followed.
    Raises DataError before the block where `determines` cannot be stored.
    """
    text = _manifest_text(path, determines)
    temporary = path.with_name(f".{path.name}.tmp")
    retired = path.with_name(f".{path.name}.old")
    with _saying_where(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(retired) and not os.path.lexists(path):  # a writer was killed between its two renames
            retired.rename(path)
    for leftover in (temporary, retired):
        with _saying_where(leftover):
            _remove(leftover)
    with _saying_where(path):
        temporary.mkdir()
    try:
        with _saying_where(path):
            yield temporary
            write_bytes(temporary / MANIFEST, text)
            for file in sorted(temporary.rglob("*")):
                _fsync(file)
            _fsync(temporary)
            if os.path.lexists(path):
                path.rename(retired)
            temporary.rename(path)
            _fsync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    with _saying_where(retired):
        _remove(retired)


def _manifest_text(path: Path, determines: dict[str, Any]) -> bytes:
    try:
        return (json.dumps(determines, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except ValueError as error:
        raise DataError(
            f"what determines it cannot be stored as JSON: {error}",
            where=str(path / MANIFEST),
            fix="set every number of params.yaml to a finite one; `steptool params` checks them",
        ) from error


def _remove(path: Path) -> None:
    """Remove whatever has this name, if anything has; of a link the link only."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

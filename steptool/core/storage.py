"""Files in and out: JSONL (optionally gzipped), JSON, and whole output folders, each written atomically.

A stage writes into `output_folder(path, determines)`: a temporary sibling that is fsynced, gets a
`manifest.json` of what determines it, and is renamed into place only when the stage succeeded.
Nothing half-written ever has the final name, and the same input gives the same bytes.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from steptool import __version__
from steptool.core.errors import DataError, StorageError
from steptool.core.sharing import Pool

SCHEMA_VERSION = 2
"""Raised when a stored record changes meaning; readers refuse other versions."""

MANIFEST = "manifest.json"
MAX_DOCUMENT = 64 << 20
"""Bytes of a text or a JSON document; the largest that a stage writes has some hundred thousand."""
MAX_LINE = 32 << 20
"""Bytes of one line; a trajectory of 100,000 tokens has 3 million."""
MAX_GROWTH, ALWAYS_ALLOWED = 100, 64 << 20
"""Text is at most this many times as large as the gzip file that holds it, or this many bytes. Trajectories are 5 to
20 times as large; zeros are 1,000 times as large, which is how 3 MB become 3 GB."""
Record = TypeVar("Record", bound=BaseModel)
PULL = "run `dvc repro`, or `dvc pull` it"
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
    with _replacing(path) as file:
        file.write(data)


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of `path` when the block ends well, and vanishes when it does not."""
    temporary = path.with_name(f".{path.name}.tmp")
    with _saying_where(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
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
    return parse_text(read_text(path), str(path), fix=f"delete {path} and run `dvc repro` again")


def parse_json(text: str) -> Any:
    """Strict JSON. Raises ValueError, a JSONDecodeError where the place is known.

    Refuses what Python's own reader lets in and what breaks something later: NaN, infinities, numbers that become one,
    a name given twice in an object, more than 200 levels, half of a surrogate pair.
    """
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_no_number, object_pairs_hook=without_duplicates)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    from_json(text)  # checks the depth and the surrogates
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:32]} is too large for a number")
    return value


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError where a name is given twice in it."""
    found = dict(pairs)
    if len(found) != len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{name[:32]!r} is given twice")
    return found


def parse_text(text: str, where: str, *, line: int | None = None, fix: str) -> Any:
    """`parse_json` that raises DataError. `line`: of a file of JSON lines; None where the text is a whole document."""
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        place = f" at column {error.pos + 1}" if line else ""  # `colno` would begin anew after the end of the line
        raise DataError(f"not JSON: {error.msg}{place}", where=f"{where}:{line or error.lineno}", fix=fix) from error
    except ValueError as error:
        where = f"{where}:{line}" if line else where
        raise DataError(f"not JSON: {str(error)[:200]}", where=where, fix=fix) from error


def read_record(path: Path, model: type[Record]) -> Record:
    """Read one record that `write_json` wrote. Raises DataError for what is missing, broken or of another schema."""
    return parse_record(read_json(path), model, where=str(path), fix=WRITTEN_OTHERWISE)


def parse_record(value: Any, model: type[Record], *, where: str, fix: str) -> Record:
    """`value` as a record. Raises DataError that names the first field which breaks an invariant of `model`; before
    all others one that `model` does not have: another seems to be missing where its name is mistyped."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        place = ".".join(part for part in map(str, first["loc"]) if "[" not in part)  # pydantic's name of a validator
        name = value.get("id") if isinstance(value, dict) else None
        kind = model.__name__.lstrip("_")
        who = f"{kind} {name[:64]}" if name and isinstance(name, str) else kind
        raise DataError(
            f"{who}: {f'{place[:200]}: ' if place else ''}{first['msg'].removeprefix('Value error, ')[:500]}",
            where=where,
            fix=fix,
        ) from error


def read_text(path: Path) -> str:
    try:
        return read_bounded(path, MAX_DOCUMENT).decode()
    except FileNotFoundError as error:
        raise DataError("no such file", where=str(path), fix=PULL) from error
    except (OSError, UnicodeDecodeError) as error:
        found = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise DataError(found, where=str(path), fix=restore(path)) from error


def conflict_line(text: str) -> int | None:
    """Number of the first line that Git marks a merge conflict with."""
    numbered = enumerate(text.splitlines(), start=1)
    return next((number for number, line in numbered if re.match(r"(<<<<<<<|=======|>>>>>>>)( |$)", line)), None)


def read_bounded(path: Path, limit: int) -> bytes:
    """A file's content. Raises OSError, also where it is larger than `limit` bytes or no ordinary file."""
    with _opened(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(f"it is larger than {limit:,} bytes")
    return content


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """An ordinary file to read. A pipe would wait for a writer, a device may have no end: they raise OSError."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("it is not an ordinary file")
    with path.open("rb") as file:
        yield file


def read_lines(path: Path, *, missing: str, broken: str) -> Iterator[str]:
    """The lines of a text file, each with its end; a file whose name ends in .gz is decompressed on the way.

    Raises DataError for a file that is missing (with the fix `missing`), and for one that is damaged, not UTF-8, has
    a line over MAX_LINE or unpacks to more than MAX_GROWTH allows (with the fix `broken`).
    """
    number = 1
    try:
        with _opened(path) as file:
            packed = path.suffix == ".gz"
            left = max(ALWAYS_ALLOWED, MAX_GROWTH * path.stat().st_size)
            lines = gzip.GzipFile(fileobj=file) if packed else file
            while line := lines.readline(MAX_LINE + 1):
                left -= len(line) if packed else 0
                if len(line) > MAX_LINE:
                    raise DataError(f"a line of more than {MAX_LINE:,} bytes", where=f"{path}:{number}", fix=broken)
                if left < 0:
                    found = f"unpacks to more than {MAX_GROWTH} times its size"
                    raise DataError(found, where=f"{path}:{number}", fix=broken)
                yield line.decode()
                number += 1
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError("no such file", where=str(path), fix=missing) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"not a whole gzip file: {error}", where=f"{path}:{number}", fix=broken) from error
    except (OSError, UnicodeDecodeError) as error:
        found = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise DataError(found, where=f"{path}:{number}", fix=broken) from error


def dumps(record: BaseModel) -> str:
    """One record as one line of JSON: fields in their declared order, no spaces."""
    return json.dumps(record.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> int:
    """Write records, one a line, after a header line with the schema version; returns how many.

    They may come from anywhere, one by one: no more than one is held in memory.
    A name that ends in .gz is compressed, with no time stamp in it: same records, same bytes.
    """
    count, kind, packed = 0, "", path.suffix == ".gz"
    with _spool(path) as body:
        for record in records:
            kind = kind or type(record).__name__
            line = f"{dumps(record)}\n".encode()
            with _saying_where(path):
                body.write(line)
            count += 1
        header = {"schema_version": SCHEMA_VERSION, "kind": kind, "rows": count}
        body.seek(0)
        with _replacing(path) as file, _packer(file) if packed else nullcontext(file) as out:
            out.write(f"{json.dumps(header)}\n".encode())
            shutil.copyfileobj(body, out)
    return count


def _spool(path: Path) -> IO[bytes]:
    """A file without a name, beside `path`: the first line of JSONL says how many lines follow."""
    with _saying_where(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=path.parent)


def _packer(file: BinaryIO) -> gzip.GzipFile:
    return gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0, compresslevel=6)


def read_jsonl(path: Path, model: type[Record]) -> list[Record]:
    """Read what `write_jsonl` wrote; equal parts of the records are one object. Raises what `each_of_jsonl` does."""
    pool = Pool()
    return [pool.shared(record) for record in stream_jsonl(path, model)]


def stream_jsonl(path: Path, model: type[Record]) -> Iterator[Record]:
    """The records of an output of a stage, one after the other: as many as anyone likes, for no more memory."""
    return each_of_jsonl(path, model, missing=PULL, broken=restore(path))


def rows_of(path: Path) -> int:
    """How many records an output of a stage has, as its first line says. Raises what `each_of_jsonl` does."""
    fix = restore(path)
    first = next(read_lines(path, missing=PULL, broken=fix), "")
    return int(_header(path, parse_text(first, str(path), line=1, fix=fix), None, fix)["rows"])


def restore(path: Path) -> str:
    """What to do where a file or folder that a stage wrote is broken."""
    return f"restore it: dvc checkout --force {path}"


def each_of_jsonl(path: Path, model: type[Record], *, missing: str, broken: str) -> Iterator[Record]:
    """The records that `write_jsonl` wrote, one after the other.

    Raises DataError naming file and line for a missing file (with the fix `missing`), another schema version, a
    truncated file, a line that is not JSON, and a record that breaks an invariant of `model` (with the fix `broken`).
    That rows are missing shows at the end.
    """
    header: Any = None
    number = 0
    for line in read_lines(path, missing=missing, broken=broken):
        number += 1
        if not line.endswith("\n"):
            raise DataError("the last line is cut off", where=f"{path}:{number}", fix=broken)
        value = parse_text(line, str(path), line=number, fix=broken)
        if number == 1:
            header = _header(path, value, model, broken)
        else:
            yield parse_record(value, model, where=f"{path}:{number}", fix=broken)
    if header is None:
        raise DataError("it is empty", where=f"{path}:1", fix=broken)
    rows = number - 1
    if header["rows"] != rows:
        raise DataError(f"{rows} rows, but its first line says {header['rows']}", where=f"{path}:{number}", fix=broken)


def _header(path: Path, header: Any, model: type[Record] | None, fix: str) -> dict[str, Any]:
    version = header.get("schema_version") if isinstance(header, dict) else None
    if version != SCHEMA_VERSION or isinstance(version, bool):
        found = f"schema version {str(version)[:64]}, expected {SCHEMA_VERSION}"
        raise DataError(found, where=f"{path}:1", fix=WRITTEN_OTHERWISE)
    if not (isinstance(header.get("rows"), int) and isinstance(header.get("kind"), str)):
        raise DataError("its first line names no kind and rows", where=f"{path}:1", fix=fix)
    if model is not None and header["rows"] and header["kind"] != model.__name__:
        found = f"holds {header['kind'][:64]} records, expected {model.__name__}"
        raise DataError(found, where=f"{path}:1", fix=fix)
    return header


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of a folder's relative names and contents (manifests included), 16 hex digits.

    Raises DataError where there is no such file, and for one that cannot be read.
    """
    digest = hashlib.sha256()
    if not os.path.exists(path):
        raise DataError("no such file or folder", where=str(path), fix=PULL)
    try:
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            digest.update(os.fsencode(file.relative_to(path)) + b"\0")
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
            digest.update(b"\0")
    except OSError as error:
        found, where = f"cannot be read: {error.strerror or error}", str(error.filename or path)
        raise DataError(found, where=where, fix="make it readable, then run the same command again") from error
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

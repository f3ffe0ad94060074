"""What is still to be logged: kept on disk, one JSONL file a run, and sent later.

Two write here: a stage that lost MLflow, and a stage of a pipeline whose process sends for it (`relay`). The
file of the latter begins with the run that is to be opened, and its entries call that run by the file's name.

An entry says everything that MLflow needs, so sending is the same act whether it happens at once
or a day later, and sending twice is harmless (MLflow ignores a metric, parameter, tag or input
that it already has).
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from filelock import FileLock
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from steptool.core.errors import DataError, StorageError


class Record(BaseModel):
    # NaN and infinity are facts worth keeping; pydantic reads these strings back as numbers
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


PID = r"[0-9]{1,10}"
Line = TypeVar("Line", bound=Record)


def _storable(text: Any) -> Any:
    """`text` without what no database and no JSON takes: NUL, and half a character, as in some errors of tools."""
    if not isinstance(text, str):
        return text
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\0")


Text = Annotated[str, BeforeValidator(_storable)]
Whole = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]


class Metric(Record):
    key: Text
    value: float
    step: Whole
    timestamp_ms: Whole


class Dataset(Record):
    """A dataset by content: `digest` is at most 36 characters, `source` a path as the user wrote it."""

    name: Text
    digest: Text
    source: Text
    context: Text


Status = Literal["FINISHED", "FAILED", "KILLED"]


class Entry(Record):
    """One thing to tell MLflow about one run."""

    run_id: Text
    metrics: tuple[Metric, ...] = ()
    params: dict[Text, Text] = Field(default_factory=dict)
    tags: dict[Text, Text] = Field(default_factory=dict)
    dataset: Dataset | None = None
    artifact: Text | None = None
    """A file or folder on this machine."""
    artifact_folder: Text | None = None
    """Where it goes among the run's artifacts; None for the top."""
    status: Status | None = None
    """Set where the run has ended, at `ended_ms`."""
    ended_ms: Whole | None = None


class Opening(Record):
    """A run that is still to be opened."""

    experiment: Text
    name: Text
    tags: dict[Text, Text]
    """Its host and the number of its process among them."""
    started_ms: Whole

    @model_validator(mode="after")
    def _names_its_writer(self) -> Opening:
        if "steptool.host" not in self.tags or not re.fullmatch(PID, self.tags.get("steptool.pid", "")):
            raise ValueError("no steptool.host, or no number in steptool.pid")
        return self


class Header(Record):
    """First line of a file: the tracking URI that its entries are meant for."""

    uri: Text
    opens: Opening | None = None


class Spool:
    """The entries of one stage that wait to be sent, in order, in `folder/<run_id>.jsonl`.

    Artifacts are copied next to it, since the original may be replaced before they are sent. What
    MLflow will never take goes to `<run_id>.refused`, for people to read.
    """

    def __init__(self, folder: Path, run_id: str, uri: str, opens: Opening | None = None) -> None:
        self.path = folder / f"{run_id}.jsonl"
        self.refused_path = folder / f"{run_id}.refused"
        self.opened_path = folder / f"{run_id}.opened"
        """Holds the id that MLflow gave to the run, once it has been opened."""
        self._copies = folder / run_id
        self._header = Header(uri=uri, opens=opens)
        self._lock = FileLock(f"{folder}.lock")

    def append(self, entry: Entry) -> None:
        """Keep `entry` until it can be sent. Raises StorageError if the disk will not have it."""
        self._append(self.path, entry)

    def refuse(self, entry: Entry) -> None:
        self._append(self.refused_path, entry)

    def remove(self, sent: int | None = None) -> bool:
        """Forget what waited; its copies of artifacts too, unless a refused entry names them.

        False, and nothing is forgotten, where more than the `sent` entries wait by now.
        """
        with self._lock:
            if sent is not None and len(entries_of(self.path)) > sent:
                return False
            self.path.unlink(missing_ok=True)
        self.opened_path.unlink(missing_ok=True)
        if not self.refused_path.exists():
            shutil.rmtree(self._copies, ignore_errors=True)
        return True

    def _append(self, path: Path, entry: Entry) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if entry.artifact is not None:
                entry = entry.model_copy(update={"artifact": str(self._copy(Path(entry.artifact)))})
            with self._lock, path.open("ab", buffering=0) as file:
                end = file.tell()
                records = [entry] if end else [self._header, entry]
                rest = b"".join(f"{one.model_dump_json(exclude_defaults=True)}\n".encode() for one in records)
                try:
                    while rest:
                        rest = rest[file.write(rest) :]
                except OSError:
                    os.truncate(path, end)  # half a line would spoil the next one
                    raise
        except OSError as error:
            raise StorageError(
                f"the log cannot be kept: {error.strerror or error}", where=str(path), fix="free some space"
            ) from error

    def _copy(self, source: Path) -> Path:
        if source.is_relative_to(self._copies):
            return source
        number = sum(1 for _ in self._copies.iterdir()) if self._copies.exists() else 0
        target = self._copies / str(number) / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)
        return target


def waiting(folder: Path, uri: str) -> list[Spool]:
    """Every run in `folder` with entries for the tracking server at `uri`, oldest first; see `entries_of`.

    What a relay sends is left to it. Raises DataError for a file whose first line is no header.
    """
    found = [path for path in folder.glob("*.jsonl") if header_of(path) == Header(uri=uri)]
    return [Spool(folder, path.stem, uri) for path in sorted(found, key=lambda path: (_written_at(path), path.name))]


def _written_at(path: Path) -> float:
    """0 where another process has sent it meanwhile."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0


def header_of(path: Path) -> Header | None:
    """First line of a file; None while it has none. Raises DataError if that is no header."""
    lines = _lines(path)
    return _parsed(Header, path, 1, lines[0]) if lines else None


def entries_of(path: Path, skip: int = 0) -> list[Entry]:
    """The entries of a file but for the first `skip`. Raises DataError for a line that is none."""
    first = 1 + skip
    return [_parsed(Entry, path, number, line) for number, line in enumerate(_lines(path)[first:], start=first + 1)]


def _lines(path: Path) -> list[str]:
    """The complete lines of a file, without one that is still being written or that a kill cut off.

    None where another process has sent the file meanwhile.
    """
    try:
        return path.read_bytes().decode().split("\n")[:-1]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"not a log: {error}", where=str(path), fix="move it away, then try again") from error


def _parsed(kind: type[Line], path: Path, number: int, line: str) -> Line:
    try:
        return kind.model_validate_json(line)
    except ValueError as error:
        fix = "delete that line, then try again"
        raise DataError("not a log entry", where=f"{path}:{number}", fix=fix) from error

"""What happened in one run, written down as it happens: a JSONL file in `.steptool/unlogged/`.

    <time>-<pid>.jsonl     first line: the run to open in MLflow; then one entry a line, the end of the run last
    <time>-<pid>.sent      its id in MLflow, and how many of the entries MLflow has
    <time>-<pid>/          copies of its artifacts, since the originals may be replaced before they are sent
    <time>-<pid>.refused   entries that MLflow will never take, for people to read
    <time>-<pid>.aside     the journal itself, where it cannot be read

The process of the run writes the journal, `steptool.tracking.delivery` sends it, and removes it after the end.
An entry says everything that MLflow needs, and sending it twice is harmless: MLflow ignores a metric, parameter, tag
or input that it already has.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from steptool.core.errors import DataError, StorageError
from steptool.core.storage import write_bytes
from steptool.tracking.machine import host_name, process_runs


class Record(BaseModel):
    # NaN and infinity are facts worth keeping; pydantic reads these strings back as numbers
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


PID = r"[0-9]{1,10}"
Line = TypeVar("Line", bound=Record)


def _storable(text: Any) -> Any:
    """`text` without NUL and half characters, which some errors of tools hold and neither databases nor JSON take."""
    if not isinstance(text, str):
        return text
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\0")


Text = Annotated[str, BeforeValidator(_storable)]
Whole = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]


def now_ms() -> int:
    return int(time.time() * 1000)


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

    run_id: Text | None = None
    """In MLflow; None for the run that the journal is of."""
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


class Header(Record):
    """First line of a journal: the run, and the tracking URI of the MLflow that it is to be opened in."""

    uri: Text
    experiment: Text
    name: Text
    tags: dict[Text, Text]
    """The host and the number of the writing process among them."""
    started_ms: Whole
    parent_to_end: Text | None = None
    """Id of a run that ends when this one does, in the same way: the parent of a stage that runs by itself."""

    @model_validator(mode="after")
    def _names_its_writer(self) -> Header:
        if "steptool.host" not in self.tags or not re.fullmatch(PID, self.tags.get("steptool.pid", "")):
            raise ValueError("no steptool.host, or no number in steptool.pid")
        return self

    def writer_is_gone(self) -> bool:
        """True where the writing process was one of this machine and has ended."""
        return self.tags["steptool.host"] == host_name() and not process_runs(int(self.tags["steptool.pid"]))


class Sent(Record):
    """What MLflow has of a journal: the run, and the first `entries` of its entries."""

    run_id: str
    entries: int


class Journal:
    """The files of one run; see the module's docstring."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.refused_path = path.with_suffix(".refused")
        self._sent_path = path.with_suffix(".sent")
        self._copies = path.with_suffix("")

    @classmethod
    def begin(cls, folder: Path, header: Header) -> Journal:
        """The journal of a run that begins now in this process."""
        journal = cls(folder / f"{time.time_ns()}-{os.getpid()}.jsonl")
        _append(journal.path, header)
        return journal

    def append(self, entry: Entry) -> None:
        """Write `entry` down, with a copy of its artifact. Raises StorageError if the disk will not have it."""
        if entry.artifact is not None:
            with _kept(self._copies):
                entry = entry.model_copy(update={"artifact": str(self._copy(Path(entry.artifact)))})
        _append(self.path, entry)

    def header(self) -> Header | None:
        """None while nothing is written. Raises DataError if the first line is no header."""
        lines = self._lines()
        return self._parsed(Header, 1, lines[0]) if lines else None

    def entries(self, skip: int = 0) -> list[Entry]:
        """All entries but for the first `skip`. Raises DataError for a line that is none."""
        first = 1 + skip
        return [self._parsed(Entry, number, line) for number, line in enumerate(self._lines()[first:], start=first + 1)]

    def sent(self) -> Sent | None:
        """None where the run has not been opened."""
        try:
            return Sent.model_validate_json(self._sent_path.read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def note_sent(self, sent: Sent | None) -> None:
        """Keep what `sent` gives back from now on."""
        write_bytes(self._sent_path, sent.model_dump_json().encode() if sent else b"")

    def refuse(self, entry: Entry) -> None:
        """Keep `entry` for people to read."""
        _append(self.refused_path, entry)

    def set_aside(self) -> Path:
        """Leave the journal to people: where it is now."""
        self._sent_path.unlink(missing_ok=True)
        return self.path.rename(self.path.with_suffix(".aside"))

    def remove(self) -> None:
        """Forget the run; its copies of artifacts too, unless a refused entry names them."""
        self.path.unlink(missing_ok=True)
        self._sent_path.unlink(missing_ok=True)
        if not self.refused_path.exists():
            shutil.rmtree(self._copies, ignore_errors=True)

    def _copy(self, source: Path) -> Path:
        number = sum(1 for _ in self._copies.iterdir()) if self._copies.exists() else 0
        target = self._copies / str(number) / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target))

    def _lines(self) -> list[str]:
        """The complete lines, without one that is still being written or that a kill cut off."""
        try:
            written = self.path.read_bytes().rpartition(b"\n")[0].decode()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"not a journal: {error}", where=str(self.path)) from error
        return written.split("\n") if written else []

    def _parsed(self, kind: type[Line], number: int, line: str) -> Line:
        try:
            return kind.model_validate_json(line)
        except ValueError as error:
            raise DataError("not an entry of a journal", where=f"{self.path}:{number}") from error


def _append(path: Path, record: Record) -> None:
    rest = f"{record.model_dump_json(exclude_defaults=True)}\n".encode()
    with _kept(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                os.truncate(path, end)  # half a line would spoil the next one
                raise


@contextmanager
def _kept(path: Path) -> Iterator[None]:
    """Turn an OSError while `path` is written into a StorageError."""
    try:
        yield
    except OSError as error:
        found, fix = f"the log cannot be kept: {error.strerror or error}", "free some space or mend the permissions"
        raise StorageError(found, where=str(path), fix=fix) from error

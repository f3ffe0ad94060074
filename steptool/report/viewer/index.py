"""One source while it is read, and afterwards: rows in the order of its files, search, whole records on demand.

file.jsonl.gz ── a thread ──►  rows      what the list shows                      in memory
                               texts     what the search looks at                 in memory
                               lines     the records as they stand in the file    in a file without a name, which the
                                                                                  system removes with this process
The page shows rows as they come. 20,000 attempts take some seconds, and no record is parsed whole before it is opened.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Condition, Thread
from typing import NamedTuple

from pydantic import ValidationError

from steptool.core.errors import DataError, StepToolError
from steptool.core.storage import PULL, SCHEMA_VERSION, WRITTEN_OTHERWISE, parse_record, parse_text, read_lines, restore
from steptool.core.types import ScoredTrajectory, Trajectory
from steptool.report.viewer.records import Attempt, Judged, Row, row_of, text_of
from steptool.report.viewer.sources import Source
from steptool.report.viewer.tasks import Tasks

FIRST_BLOCK, BLOCK = 25, 250
"""Rows of a file that are published together."""
KINDS: dict[str, tuple[type[Attempt | Judged], type[Trajectory | ScoredTrajectory]]] = {
    "Trajectory": (Attempt, Trajectory),
    "ScoredTrajectory": (Judged, ScoredTrajectory),
}
"""Kind in the first line of a file → what the list reads of a record, and the whole record."""


class _Entry(NamedTuple):
    row: Row
    text: str
    line: bytes
    number: int
    """Of the line in its file."""


class _Place(NamedTuple):
    """Where a record stands: in bytes of the file without a name, and in its own file."""

    start: int
    length: int
    kind: str
    number: int


class Index:
    """The attempts of a source. Reading begins at once; every method may be called from any thread."""

    def __init__(self, root: Path, source: Source, tasks: Tasks) -> None:
        self.source, self._root, self._tasks = source, root, tasks
        self.rows: list[Row] = []
        self.problems: list[str] = []
        """Files that could not be read to their end."""
        self.is_read = False
        self.state = state_of(root, source)
        self._texts: list[str] = []
        self._places: list[_Place] = []
        self._by_task: dict[str, list[int]] = defaultdict(list)
        self._lines = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the index
        self._end = 0
        self._more = Condition()
        Thread(target=self._read, name=f"reads {source.key}", daemon=True).start()

    def blocks(self) -> Iterator[Sequence[Row]]:
        """All rows from the first, as they are read: each block waits until there is more."""
        seen = 0
        while True:
            with self._more:
                while not self.is_read and len(self.rows) == seen:
                    self._more.wait()
                found, is_last = self.rows[seen:], self.is_read
            if found:
                yield found
                seen += len(found)
            if is_last:
                return

    def search(self, text: str) -> list[int]:
        """Rows that hold every word of `text`; words between double quotes stand together. In any case of letters."""
        words = [(quoted or word).casefold() for quoted, word in re.findall(r'"([^"]+)"|(\S+)', text)]
        return [row for row, searched in enumerate(self._texts) if all(word in searched for word in words)]

    def attempts_at(self, task: str) -> list[int]:
        """Rows of a task, in the order of the parts."""
        return list(self._by_task.get(task, ()))

    def records(self, rows: Iterable[int]) -> list[Trajectory | ScoredTrajectory]:
        """Raises DataError where a record breaks an invariant."""
        return [self._record(row) for row in rows]

    def _record(self, row: int) -> Trajectory | ScoredTrajectory:
        place = self._places[row]
        line = os.pread(self._lines.fileno(), place.length, place.start).decode()
        path = self.source.parts[self.rows[row].part].path
        fix = restore(path)
        value = parse_text(line, str(path), line=place.number, fix=fix)
        return parse_record(value, KINDS[place.kind][1], where=f"{path}:{place.number}", fix=fix)

    def _read(self) -> None:
        try:
            for number, part in enumerate(self.source.parts):
                try:
                    self._read_file(number, self._root / part.path)
                except (StepToolError, OSError) as error:
                    self.problems.append(str(error))
        finally:
            with self._more:
                self.is_read = True
                self._more.notify_all()

    def _read_file(self, part: int, path: Path) -> None:
        """Raises DataError where it ends being readable; what stands before is published."""
        again = restore(path)
        lines = read_lines(path, missing=PULL, broken=again)
        header = next(lines, None)
        if header is None:
            raise DataError("it is empty", where=f"{path}:1", fix=again)
        kind, count = _header(path, header)
        before, size, block = len(self.rows), FIRST_BLOCK, list[_Entry]()
        try:
            for number, line in enumerate(lines, start=2):
                block.append(self._entry(line, number, part, kind, path))
                if len(block) == size:
                    self._publish(block, kind)
                    size, block = BLOCK, []
        finally:
            self._publish(block, kind)
        found = len(self.rows) - before
        if found != count:
            raise DataError(f"{found} rows, but its first line says {count}", where=str(path), fix=again)

    def _entry(self, line: str, number: int, part: int, kind: str, path: Path) -> _Entry:
        try:
            record = KINDS[kind][0].model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))[:200]
            found = f"{f'{place}: ' if place else ''}{first['msg'][:300]}"
            raise DataError(found, where=f"{path}:{number}", fix=restore(path)) from error
        task = record.trajectory.task_id if isinstance(record, Judged) else record.task_id
        query = self._tasks.query(task)
        row = row_of(record, part, query, self._tasks.group(task))
        return _Entry(row, text_of(record, query), line.encode(), number)

    def _publish(self, block: Sequence[_Entry], kind: str) -> None:
        self._lines.write(b"".join(entry.line for entry in block))
        self._lines.flush()
        for number, entry in enumerate(block, start=len(self.rows)):
            self._places.append(_Place(self._end, len(entry.line), kind, entry.number))
            self._by_task[entry.row.task].append(number)
            self._end += len(entry.line)
        with self._more:
            self._texts += [entry.text for entry in block]
            self.rows += [entry.row for entry in block]
            self._more.notify_all()


def _header(path: Path, line: str) -> tuple[str, int]:
    """Kind and number of the records. Raises DataError for a file that holds no attempts."""
    again = restore(path)
    header = parse_text(line, str(path), line=1, fix=again)
    kind = header.get("kind") if isinstance(header, dict) else None
    if not isinstance(header, dict) or not isinstance(header.get("rows"), int):
        raise DataError(
            "its first line does not say what it holds, as that of a file of attempts does",
            where=f"{path}:1",
            fix="`steptool traces import` makes attempts of logs and of conversations",
        )
    if header.get("schema_version") != SCHEMA_VERSION:
        found = f"schema version {str(header.get('schema_version'))[:64]}, expected {SCHEMA_VERSION}"
        raise DataError(found, where=f"{path}:1", fix=WRITTEN_OTHERWISE)
    if kind not in KINDS and header["rows"]:
        found = f"holds {str(kind)[:64]} records, no attempts"
        raise DataError(found, where=f"{path}:1", fix=f"name a file of {' or '.join(KINDS)} records")
    return (kind if isinstance(kind, str) and kind in KINDS else "Trajectory"), header["rows"]


def state_of(root: Path, source: Source) -> list[tuple[int, int]]:
    """Changes where a file of the source does."""
    stats = [os.stat(root / part.path) for part in source.parts if (root / part.path).exists()]
    return [(stat.st_mtime_ns, stat.st_size) for stat in stats]

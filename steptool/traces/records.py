"""The records of files as they come: JSON lines, JSON documents, gzipped or not, one file or a folder of them.

    log.jsonl       a record a line
    trace.json      one record, or a list of records
    folder/         all files of it whose names end so, by their names

A file of lines is read line by line, so its size does not matter. A record that cannot be read is named, and the next
one follows.
"""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from steptool.core.errors import DataError, InputError, StepToolError
from steptool.core.storage import MAX_DOCUMENT, MAX_LINE, parse_json, read_bounded
from steptool.traces.conversation import Conversation, Skipped, Unusable

SUFFIXES = (".json", ".jsonl", ".ndjson")
_LINES = (".jsonl", ".ndjson")


class Record(NamedTuple):
    where: str
    """FILE:LINE, or FILE[INDEX] of a document."""
    value: Any


ODD = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What reading a record raises where a value is of another type than its format has there."""


def read_each(
    source: str, read: Callable[[Record], Iterable[Conversation | Skipped]]
) -> Iterator[Conversation | Skipped]:
    """What `read` finds in each record of a source. It may raise Unusable, and stumble over a record: the next follows.

    Raises what `records` does.
    """
    for record in records(source):
        if isinstance(record, Skipped):
            yield record
            continue
        try:
            yield from read(record)
        except Unusable as error:
            yield Skipped(where=record.where, reason=error.reason, is_broken=error.is_broken)
        except StepToolError:
            raise
        except ODD:
            yield Skipped(where=record.where, reason="a value is of another type than this kind has", is_broken=True)


def records(source: str) -> Iterator[Record | Skipped]:
    """Raises InputError for a source that is not there, and a folder without such files."""
    for file in files(Path(source)):
        yield from _lines(file) if _holds_lines(file) else _document(file)


def first_record(source: str) -> Record | Skipped | None:
    """The first record that can be read, to see what the source holds; of the first 100 where none can the first."""
    broken = None
    for record in itertools.islice(records(source), 100):
        if isinstance(record, Record):
            return record
        broken = broken or record
    return broken


def files(source: Path) -> list[Path]:
    """The file itself, or those of a folder and of the folders in it."""
    if source.is_file():
        return [source]
    if not source.exists():
        raise InputError("no such file or folder", where=str(source), fix="name a file that is there")
    found = sorted(file for file in source.rglob("*") if file.is_file() and _suffix(file) in SUFFIXES)
    if not found:
        ends = ", ".join(SUFFIXES)
        raise InputError(f"holds no file whose name ends in {ends}", where=str(source), fix="name the file itself")
    return found


def _suffix(file: Path) -> str:
    return Path(file.stem).suffix if file.suffix == ".gz" else file.suffix


def _holds_lines(file: Path) -> bool:
    """A document is told from lines by its first one, which is no JSON by itself."""
    if _suffix(file) in _LINES:
        return True
    first = next((line for _, line in _raw_lines(file) if isinstance(line, bytes) and line.strip()), b"")
    try:
        value = parse_json(first.decode("utf-8-sig"))
    except ValueError:
        return first.removeprefix(BOM_UTF8).lstrip()[:1] not in (b"{", b"[")
    return not _is_list_of_records(value)


def _is_list_of_records(value: Any) -> bool:
    """A list of messages is one record: those have roles."""
    return isinstance(value, list) and not (value and isinstance(value[0], dict) and "role" in value[0])


def _document(file: Path) -> Iterator[Record | Skipped]:
    try:
        data = _unpacked(file) if file.suffix == ".gz" else read_bounded(file, MAX_DOCUMENT)
        value = parse_json(data.decode("utf-8-sig"))
    except (OSError, EOFError, zlib.error) as error:
        yield Skipped(where=str(file), reason=f"it cannot be read: {error}", is_broken=True)
        return
    except ValueError as error:
        where = f"{file}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else str(file)
        yield Skipped(where=where, reason="not JSON", is_broken=True)
        return
    if _is_list_of_records(value):
        yield from (Record(f"{file}[{index}]", item) for index, item in enumerate(value))
    else:
        yield Record(str(file), value)


def _unpacked(file: Path) -> bytes:
    with gzip.open(file) as stream:
        data = stream.read(MAX_DOCUMENT + 1)
    if len(data) > MAX_DOCUMENT:
        raise OSError(f"it is larger than {MAX_DOCUMENT:,} bytes")
    return data


def _lines(file: Path) -> Iterator[Record | Skipped]:
    for number, line in _raw_lines(file):
        where = f"{file}:{number}"
        if isinstance(line, str):
            yield Skipped(where=where, reason=line, is_broken=True)
        elif line.strip():
            try:
                yield Record(where, parse_json(line.decode("utf-8-sig" if number == 1 else "utf-8")))
            except ValueError:
                yield Skipped(where=where, reason=_why_no_json(line), is_broken=True)


def _why_no_json(line: bytes) -> str:
    """In words that quote nothing of the line: it may hold what must not be shown."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return "not UTF-8"
    if text.lstrip()[:1] in ("{", "[") and text.rstrip()[-1] not in "}]":
        return "not JSON: cut off"
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return "not JSON"
    return "not JSON: NaN, a name given twice, half of a character, or nested too deeply"


def _raw_lines(file: Path) -> Iterator[tuple[int, bytes | str]]:
    """Lines by their numbers; in the place of one that cannot be had stands why."""
    number = 1
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            while line := stream.readline(MAX_LINE + 1):
                if len(line) <= MAX_LINE:
                    yield number, line
                else:
                    yield number, f"longer than {MAX_LINE:,} bytes"
                    while line and not line.endswith(b"\n"):
                        line = stream.readline(MAX_LINE)
                number += 1
    except (gzip.BadGzipFile, EOFError, zlib.error):
        yield number, "the gzip file is damaged from here on"
    except OSError as error:
        fix = "make it readable, then run the same command again"
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(file), fix=fix) from error

"""The files of the benchmark, read and checked.

queries.jsonl       590 requests with the calls that are right
databases/*.csv     the office before any call
runs/*.jsonl.gz     recorded attempts of other models
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator

from steptool.core.errors import DataError, InputError
from steptool.core.storage import file_hash, parse_record, parse_text, read_lines, read_text
from steptool.core.types import content_hash
from steptool.worlds.workbench.office import Office, Row, is_id

VARIABLE = "STEPTOOL_WORKBENCH"
QUERIES, DATABASES, RUNS = "queries.jsonl", "databases", "runs"
FILES = {
    "events": ("calendar_events.csv", ("event_id", "event_name", "participant_email", "event_start", "duration")),
    "emails": (
        "emails.csv",
        ("email_id", "inbox/outbox", "sender/recipient", "subject", "sent_datetime", "body"),
    ),
    "visits": (
        "analytics_data.csv",
        ("date_of_visit", "visitor_id", "page_views", "session_duration_seconds", "traffic_source", "user_engaged"),
    ),
    "customers": (
        "customer_relationship_manager_data.csv",
        (
            *("customer_id", "assigned_to_email", "customer_name", "customer_email", "customer_phone"),
            *("last_contact_date", "product_interest", "status", "follow_up_by", "notes"),
        ),
    ),
    "tasks": (
        "project_tasks.csv",
        ("task_id", "task_name", "assigned_to_email", "list_name", "due_date", "board"),
    ),
}
"""Table → its file, and the columns that it must have."""
SECONDS = "session_duration_seconds"
"""The column that a tool reckons with."""
_SECONDS = re.compile(r"(\d{1,15}(\.\d{1,15})?)?", re.ASCII)
DIRECTORY = "email_addresses.csv"
"""Addresses, a line each, without a header."""
RESTORE = "restore the file from where it came"
Record = TypeVar("Record", bound=BaseModel)


def _by_name(arguments: object) -> object:
    """A recorded model may have written one text where the arguments belong."""
    return arguments if isinstance(arguments, dict) else {"#0": arguments}


class Call(BaseModel):
    name: str
    arguments: Annotated[dict[str, Any], BeforeValidator(_by_name)]


class Request(BaseModel):
    id: str
    domain: str
    query: str
    base_template: str
    toolkits: list[str]
    calls: list[Call]


class RecordedStep(Call):
    reply: Any


class RecordedRun(BaseModel):
    query_id: str
    steps: list[RecordedStep]
    executed_calls: list[Call] | None = None
    answer: Any = None
    error: str | None = None
    correct: bool


def folder(path: str) -> Path:
    """The folder of the pack. Raises InputError where none is named, or it is not there."""
    named = path or os.environ.get(VARIABLE, "")
    fix = f"set world.path in params.yaml, or {VARIABLE}, to the folder that holds {QUERIES} and {DATABASES}/"
    if not named:
        raise InputError("the folder of WorkBench is not named", where="world workbench", fix=fix)
    if not os.path.isfile(os.path.join(named, QUERIES)):
        raise InputError(f"no {QUERIES} in it", where=named, fix=fix)
    return Path(named)


def content(path: Path) -> str:
    """Hash of the requests and the databases."""
    return f"files {content_hash([file_hash(path / QUERIES), file_hash(path / DATABASES)])}"


def requests(path: Path) -> list[Request]:
    """Raises DataError for a line that is no request, and for an id that stands twice."""
    found = list(_records(path / QUERIES, Request))
    if len({request.id for request in found}) < len(found):
        raise DataError("an id stands in it twice", where=str(path / QUERIES), fix=RESTORE)
    return found


def office(path: Path) -> Office:
    """The databases as every session begins with them. Raises DataError for a file that is missing or broken."""
    tables: dict[str, list[Row]] = {"plots": []}
    for table, (name, columns) in FILES.items():
        file = path / DATABASES / name
        reader = csv.DictReader(io.StringIO(read_text(file)), strict=True)
        tables[table] = list(_rows(reader, columns, file))
        _check_ids(tables[table], columns[0], file)
    addresses = read_text(path / DATABASES / DIRECTORY).split()
    tables["directory"] = [{"email_address": address} for address in addresses]
    return Office(tables)


def runs(path: Path, name: str) -> Iterator[RecordedRun]:
    """The recorded attempts of a run, such as `gpt-4_domains`. Raises DataError where there are none."""
    return _records(path / RUNS / f"{name}.jsonl.gz", RecordedRun)


def run_names(path: Path) -> list[str]:
    return sorted(file.name.removesuffix(".jsonl.gz") for file in (path / RUNS).glob("*.jsonl.gz"))


def _rows(reader: csv.DictReader[str], columns: tuple[str, ...], file: Path) -> Iterator[Row]:
    try:
        if tuple(reader.fieldnames or ()) != columns:
            raise DataError(f"its columns are not {', '.join(columns)}", where=f"{file}:1", fix=RESTORE)
        for row in reader:
            if None in row or None in row.values():
                raise DataError("a row of another length", where=f"{file}:{reader.line_num}", fix=RESTORE)
            if not _SECONDS.fullmatch(row.get(SECONDS, "")):
                raise DataError(f"{SECONDS} is no number", where=f"{file}:{reader.line_num}", fix=RESTORE)
            yield {column: value or None for column, value in row.items()}
    except csv.Error as error:
        raise DataError(f"is no table: {error}", where=f"{file}:{reader.line_num}", fix=RESTORE) from error


def _check_ids(rows: list[Row], column: str, file: Path) -> None:
    if not column.endswith("_id"):
        return
    ids = [row[column] or "" for row in rows]
    if len(set(ids)) < len(ids) or not all(map(is_id, ids)):
        raise DataError(f"{column} does not hold a number of its own in each row", where=str(file), fix=RESTORE)


def _records(path: Path, model: type[Record]) -> Iterator[Record]:
    for number, line in enumerate(read_lines(path, missing=RESTORE, broken=RESTORE), start=1):
        value = parse_text(line, str(path), line=number, fix=RESTORE)
        yield parse_record(value, model, where=f"{path}:{number}", fix=RESTORE)

"""The databases of one session. Rows are never changed in place, so that a copy costs five short lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Row = Mapping[str, str | None]
"""A row of a database: column → text, None where the file has nothing."""

NOW = "2023-11-30 00:00:00"
"""The time of every request."""

IDS = {"events": "event_id", "emails": "email_id", "customers": "customer_id", "tasks": "task_id"}
"""Table → its column of ids."""
LONGEST_ID = 18
"""Digits."""
COMPARED = ("events", "emails", "plots", "customers", "tasks")
"""The tables that calls can change."""
CASE_COUNTS = frozenset({"status", "list_name", "board"})
"""Columns in which capitals make a difference; in all others they do not."""


@dataclass
class Office:
    """`tables` holds the rows of the pack by table (`steptool.worlds.workbench.pack.FILES`), and the plots so far."""

    tables: dict[str, list[Row]]

    def copy(self) -> Office:
        return Office({name: list(rows) for name, rows in self.tables.items()})

    def rows(self, table: str) -> list[Row]:
        return self.tables[table]

    def find(self, table: str, key: str) -> Row | None:
        return next((row for row in self.tables[table] if row[IDS[table]] == key), None)

    def add(self, table: str, row: Row, digits: int = 8) -> str:
        """Add a row under the next free id, which is returned: one more than the highest, with as many digits."""
        column = IDS[table]
        highest = max((int(old[column] or 0) for old in self.tables[table] if is_id(old[column])), default=-1)
        key = f"{highest + 1:0{digits}d}"
        self.tables[table].append({column: key, **row})
        return key

    def change(self, table: str, key: str, field: str, value: str) -> None:
        """Write `value` into a field of the row of this id. A field that no row has yet becomes a new column."""
        column = IDS[table]
        self.tables[table] = [{**row, field: value} if row[column] == key else row for row in self.tables[table]]

    def remove(self, table: str, key: str) -> None:
        self.tables[table] = [row for row in self.tables[table] if row[IDS[table]] != key]

    def differs(self, other: Office) -> list[str]:
        """The tables in which two offices differ."""
        return [table for table in COMPARED if not _equal(self.tables[table], other.tables[table])]


def is_id(value: str | None) -> bool:
    """Whether this is a number that a row can have. A policy may write anything into the column of ids."""
    return value is not None and value.isascii() and value.isdigit() and len(value) <= LONGEST_ID


def _equal(rows: list[Row], others: list[Row]) -> bool:
    """Rows that no call has touched are the same objects: they are not compared by value."""
    if len(rows) != len(others):
        return False
    return all(row is other or _plain(row) == _plain(other) for row, other in zip(rows, others, strict=True))


def _plain(row: Row) -> dict[str, str | None]:
    return {column: value if value is None or column in CASE_COUNTS else value.lower() for column, value in row.items()}

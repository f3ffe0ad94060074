"""A SQLite file that several processes use at the same time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steptool.core.errors import DataError, StorageError

BUSY_S = 30.0
"""How long another process may write before that is an error."""


def open_database(path: Path, tables: str) -> sqlite3.Connection:
    """The file, made where it is not there, with its tables. Each statement is a transaction unless one is begun.

    Any thread may use it, one at a time. Raises sqlite3.DatabaseError.
    """
    database = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.executescript(tables)
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


@contextmanager
def explained(path: Path, *, is_not: str, fix: str, fix_unusable: str) -> Iterator[None]:
    """Turn what SQLite raises within the block into a StorageError where the file cannot be used (`fix_unusable`), and
    into a DataError where it is no such database: `is_not` says what it is not (`fix`).
    """
    try:
        yield
    except StorageError:  # it is an OSError, too, and is explained already
        raise
    except (OSError, sqlite3.OperationalError) as error:
        raise StorageError(f"cannot be used: {error}", where=str(path), fix=fix_unusable) from error
    except sqlite3.DatabaseError as error:
        raise DataError(f"{is_not}: {error}", where=str(path), fix=fix) from error

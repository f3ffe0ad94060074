"""Every answer of an endpoint, kept by what was asked, and what it cost: one SQLite file for all runs of a project.

answers   key → the answer as it came      asked again, the same request costs nothing
ledger    one row for each answer that was paid for: tokens and money
reserved  one row for each request that is on the way, of all processes: the most that it can cost
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from steptool.endpoints.base import Spent
from steptool.system.database import explained, open_database

TABLES = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, url TEXT, model TEXT, answer TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ledger (
    at TEXT NOT NULL, url TEXT NOT NULL, model TEXT NOT NULL, key TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, tokens INTEGER NOT NULL, money REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS reserved (
    id INTEGER PRIMARY KEY, process INTEGER NOT NULL, at REAL NOT NULL, url TEXT NOT NULL, model TEXT NOT NULL,
    tokens INTEGER NOT NULL, money REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS ledger_of ON ledger (url, model, prompt_tokens, tokens, money);
"""
LONGEST_S = 3600.0
"""How long a request is on the way at most; after that, another process may have its number."""


class Reserved(NamedTuple):
    """What is on the way."""

    requests: int
    tokens: int
    money: float


class Ledger:
    """The answers of one model behind one url. Raises DataError where the file is no such database, and StorageError
    where it cannot be written. Other processes may use the file at the same time.
    """

    def __init__(self, path: Path, url: str, model: str) -> None:
        self._path, self._of = path, (url, model)
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)  # what users asked may stand in it
            self._database = open_database(path, TABLES)

    def answer(self, key: str) -> str | None:
        with self._explained():
            row = self._database.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def keep(self, key: str, answer: str, prompt_tokens: int, tokens: int, money: float) -> None:
        """Write down an answer and what it cost."""
        with self._explained(), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute(
                "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?)",
                (datetime.now(UTC).isoformat(timespec="seconds"), *self._of, key, prompt_tokens, tokens, money),
            )
            self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", (key, *self._of, answer))

    def spent(self) -> Spent:
        """In all, ever."""
        sums = "count(*), total(prompt_tokens), total(tokens), total(money)"
        with self._explained():
            query = f"SELECT {sums} FROM ledger WHERE url = ? AND model = ?"  # noqa: S608 - nothing of it is from outside
            answers, prompt_tokens, tokens, money = self._database.execute(query, self._of).fetchone()
        return Spent(answers=answers, prompt_tokens=int(prompt_tokens), tokens=int(tokens), money=money)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process writes meanwhile."""
        with self._explained(), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            yield

    def reserve(self, tokens: int, money: float) -> int:
        """Write down what a request can cost before it is sent; a number to `release` it by."""
        row = (os.getpid(), time.time(), *self._of, tokens, money)
        with self._explained():
            added = self._database.execute(
                "INSERT INTO reserved (process, at, url, model, tokens, money) VALUES (?, ?, ?, ?, ?, ?)", row
            )
        assert added.lastrowid is not None
        return added.lastrowid

    def release(self, number: int) -> None:
        with self._explained():
            self._database.execute("DELETE FROM reserved WHERE id = ?", (number,))

    def reserved(self) -> Reserved:
        """By every process that is alive: what one has left that was killed is removed."""
        with self._explained():
            owners = [row[0] for row in self._database.execute("SELECT DISTINCT process FROM reserved")]
            gone = [(owner,) for owner in owners if not _is_alive(owner)]
            self._database.executemany("DELETE FROM reserved WHERE process = ?", gone)
            self._database.execute("DELETE FROM reserved WHERE at < ?", (time.time() - LONGEST_S,))
            query = "SELECT count(*), total(tokens), total(money) FROM reserved WHERE url = ? AND model = ?"
            requests, tokens, money = self._database.execute(query, self._of).fetchone()
        return Reserved(requests, int(tokens), money)

    def close(self) -> None:
        self._database.close()

    def _explained(self) -> AbstractContextManager[None]:
        return explained(
            self._path,
            is_not="is no database of an endpoint",
            fix=f"move it away (what it holds was paid for): mv {self._path} {self._path}.old",
            fix_unusable="free some space, mend its permissions, or set another `store` of the endpoint",
        )


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True

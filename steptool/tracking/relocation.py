"""A SQLite database whose folder was moved or copied: MLflow keeps the absolute place of every artifact in it.

    sqlite:////new/place/mlflow.db    file:///old/place/mlruns/…   ->   file:///new/place/mlruns/…

Otherwise nothing that was stored would be found, and new artifacts would be written to the old place.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

FOLDER = "mlruns"
"""Where artifacts lie, beside the database."""
OUR_PLACE = re.compile(rf"(file:///(?:.*/)?{FOLDER})(?:/[^/]*)?")
"""Of an experiment; the folder itself in the first group."""

RENAMING = (
    "UPDATE experiments SET artifact_location = :new || substr(artifact_location, :length + 1) "
    "WHERE artifact_location = :old OR substr(artifact_location, 1, :length + 1) = :old || '/'",
    "UPDATE runs SET artifact_uri = :new || substr(artifact_uri, :length + 1) "
    "WHERE substr(artifact_uri, 1, :length + 1) = :old || '/'",
    "UPDATE logged_models SET artifact_location = :new || substr(artifact_location, :length + 1) "
    "WHERE substr(artifact_location, 1, :length + 1) = :old || '/'",
    "UPDATE model_versions SET storage_location = :new || substr(storage_location, :length + 1) "
    "WHERE substr(storage_location, 1, :length + 1) = :old || '/'",
)
"""Give the places that begin with `old` the beginning `new`."""


def follow_artifacts(database: Path) -> None:
    """Let `database` name places below the folder `mlruns` beside it, where the two were moved or copied together.

    That is so where artifacts that it knows lie there, or where the folder that it came from is gone. Everything else
    stays as it is. Raises OSError if the database cannot be read or written.
    """
    if not database.is_file():
        return
    try:
        with closing(sqlite3.connect(database)) as connection, connection:
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'logged_models'").fetchone():
                _rename_places(connection, database.parent / FOLDER)  # else MLflow has made no tables yet
    except sqlite3.Error as error:
        raise OSError(str(error)) from error


def _rename_places(connection: sqlite3.Connection, folder: Path) -> None:
    here = folder.as_uri()
    places = [place for (place,) in connection.execute("SELECT DISTINCT artifact_location FROM experiments")]
    found = {match[1] for place in places if (match := OUR_PLACE.fullmatch(place or ""))}
    for old in sorted(found - {here}):
        names = {"new": here, "old": old, "length": len(old)}
        if _lies_in(folder, connection, names) or not _path(old).parent.exists():
            for statement in RENAMING:
                connection.execute(statement, names)


def _lies_in(folder: Path, connection: sqlite3.Connection, names: dict[str, str | int]) -> bool:
    """Whether `folder` holds an artifact that the database has below the old place."""
    known = connection.execute(
        "SELECT substr(artifact_uri, :length + 2) FROM runs WHERE substr(artifact_uri, 1, :length + 1) = :old || '/' "
        "UNION ALL SELECT substr(artifact_location, :length + 2) FROM logged_models "
        "WHERE substr(artifact_location, 1, :length + 1) = :old || '/'",
        names,
    )
    return any((folder / unquote(place)).exists() for (place,) in known)


def _path(uri: str) -> Path:
    return Path(unquote(uri.removeprefix("file://")))

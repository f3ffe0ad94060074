"""A SQLite database whose folder was moved or copied: MLflow keeps the absolute place of every artifact in it.

    sqlite:////new/place/mlflow.db    file:///old/place/mlruns/…   ->   file:///new/place/mlruns/…

Otherwise nothing that was stored would be found, and new artifacts would be written to the old place.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

FOLDER = "mlruns"
"""Where artifacts lie, beside the database."""
OUR_PLACE = re.compile(rf"(file:///(?:.*/)?{FOLDER})(?:/[^/]*)?")
"""Of an experiment; the folder itself in the first group."""


def follow_artifacts(database: Path) -> None:
    """Let `database` name places below the folder `mlruns` beside it, where that was moved along with it.

    Leaves alone what lies in folders of other names, and everything where no `mlruns` is beside the database.
    Raises OSError if the database cannot be read or written.
    """
    folder = database.parent / FOLDER
    if not (database.is_file() and folder.is_dir()):
        return
    try:
        with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
            _rename_places(connection, folder.as_uri())
    except sqlite3.Error as error:
        raise OSError(str(error)) from error


def _rename_places(connection: sqlite3.Connection, here: str) -> None:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'logged_models'").fetchone():
        return  # MLflow has made no tables yet
    places = [place for (place,) in connection.execute("SELECT DISTINCT artifact_location FROM experiments")]
    found = {match[1] for place in places if (match := OUR_PLACE.fullmatch(place or ""))}
    for old in sorted(found - {here}):
        names = {"new": here, "old": old, "length": len(old)}
        for statement in (
            "UPDATE experiments SET artifact_location = :new || substr(artifact_location, :length + 1) "
            "WHERE artifact_location = :old OR substr(artifact_location, 1, :length + 1) = :old || '/'",
            "UPDATE runs SET artifact_uri = :new || substr(artifact_uri, :length + 1) "
            "WHERE substr(artifact_uri, 1, :length + 1) = :old || '/'",
            "UPDATE logged_models SET artifact_location = :new || substr(artifact_location, :length + 1) "
            "WHERE substr(artifact_location, 1, :length + 1) = :old || '/'",
            "UPDATE model_versions SET storage_location = :new || substr(storage_location, :length + 1) "
            "WHERE substr(storage_location, 1, :length + 1) = :old || '/'",
        ):
            connection.execute(statement, names)

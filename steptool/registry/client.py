"""The connection to MLflow: found out fast, made once, quiet, and with its faults told in one error.

MLflow takes seconds to import, so it is imported when the first connection is made.
"""

from __future__ import annotations

import http.client
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from filelock import FileLock

from steptool.errors import TrackingError
from steptool.registry.relocation import FOLDER, follow_artifacts

if TYPE_CHECKING:
    from mlflow import MlflowClient

PERMANENT = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "BAD_REQUEST")
"""MLflow's error codes for a request that stays wrong."""

DEFAULT_DATABASE = "mlflow.db"
PROBE_TIMEOUT_S = 3.0
CREATION_TIMEOUT_S = 180.0
"""Longest wait for another process that creates the database; creating it takes 6 to 20 s."""

SETTINGS = {
    # A stage must not hang for the four minutes of MLflow's own defaults when the server is gone.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
"""Environment variables of MLflow that we set where the user did not."""


def resolve_uri(uri: str | None, root: Path) -> str:
    """`uri`, else MLFLOW_TRACKING_URI, else `mlflow.db` in `root`; a relative SQLite path is taken from `root`."""
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{DEFAULT_DATABASE}"
    database = database_file(uri)
    return f"sqlite:///{(root / database).resolve()}" if database else uri


def database_file(uri: str) -> Path | None:
    """The file of a SQLite tracking URI (`sqlite:///relative` or `sqlite:////absolute`), None for any other."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix)) if uri.startswith(prefix) else None


def connect(uri: str, experiment: str) -> tuple[MlflowClient, str]:
    """A client for `uri` and the id of `experiment`, both created where they do not exist.

    Raises TrackingError within seconds if a server does not answer.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if urlsplit(uri).scheme in ("http", "https"):
        _probe(uri)
    database = database_file(uri)
    with told_plainly(uri, "open the experiment"):
        if database is None:
            return _open(uri, experiment, artifacts=None)
        database.parent.mkdir(parents=True, exist_ok=True)
        # Two processes that create the tables at once crash each other, so one creates and the others wait.
        with FileLock(f"{database}.lock", timeout=CREATION_TIMEOUT_S):
            follow_artifacts(database)
            return _open(uri, experiment, artifacts=(database.parent / FOLDER).as_uri())


class RefusedError(TrackingError):
    """MLflow answers, but will never take this: trying again is no use."""


@contextmanager
def told_plainly(uri: str, doing: str) -> Iterator[None]:
    """Turn whatever MLflow raises into one TrackingError that names the URI and the fix."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = _first_line(error).replace(uri, without_password(uri))
        found = f"cannot {doing}: {reason}"
        if isinstance(error, MlflowException) and error.error_code in PERMANENT:
            fix = "read the MLflow server's log for details"
            raise RefusedError(found, where=without_password(uri), fix=fix) from error
        raise unreachable(uri, found) from error


def unreachable(uri: str, found: str) -> TrackingError:
    if database := database_file(uri):
        fix = f"check that {database.name} and its folder can be written and hold an MLflow database, or move it away"
    else:
        fix = "start the server (`mlflow server --workers 1`), or unset MLFLOW_TRACKING_URI to track in mlflow.db"
    return TrackingError(found, where=without_password(uri), fix=fix)


def without_password(uri: str) -> str:
    """`uri` fit for a message: a user name and password in it are left out."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def _probe(uri: str) -> None:
    """Raise TrackingError unless something answers HTTP at `uri`; what it answers does not matter here."""
    parts = urlsplit(uri)
    try:
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=PROBE_TIMEOUT_S)
        try:
            connection.request("GET", f"{parts.path.rstrip('/')}/health")
            connection.getresponse()  # 401 from a proxy is an answer too; the client has the credentials
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise unreachable(uri, f"MLflow cannot be reached: {_first_line(error)}") from error


def _open(uri: str, experiment: str, artifacts: str | None) -> tuple[MlflowClient, str]:
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    import mlflow
    from mlflow.exceptions import MlflowException

    # The SQLite registry looks logged models up through the global URI, whatever the client was given.
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        try:
            return client, client.create_experiment(experiment, artifact_location=artifacts)
        except MlflowException:
            found = client.get_experiment_by_name(experiment)  # another host may have been faster
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"the experiment {experiment!r} was deleted",
            where=without_password(uri),
            fix=f"`mlflow experiments restore --experiment-id {found.experiment_id}`, or set tracking.experiment",
        )
    return client, found.experiment_id


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

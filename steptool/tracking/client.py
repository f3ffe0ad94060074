"""The connection to MLflow. It is checked fast and made once; every fault of it becomes a TrackingError.

MLflow takes seconds to import, so it is imported when the first connection is made.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from steptool.core.errors import InputError, StepToolError, TrackingError
from steptool.tracking.redaction import public, redact
from steptool.tracking.relocation import FOLDER, follow_artifacts

if TYPE_CHECKING:
    from mlflow import MlflowClient

PERMANENT = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "BAD_REQUEST")
"""MLflow's error codes for a request that stays wrong."""

DEFAULT_DATABASE = "mlflow.db"
SQLITE = re.compile(r"sqlite(\+pysqlite)?:///")
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Tag of an experiment; without it MLflow opens the experiment on a page about language model applications."""
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
LISTING = "/api/2.0/mlflow/experiments/search"
PROBE_TIMEOUT_S = (3.0, 10.0)
"""To connect; to answer, since a server may be busy with somebody's upload."""
REASON_LENGTH = 300
UNAUTHORISED = ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED")
ADDRESS_FIX = (
    "set MLFLOW_TRACKING_URI to one like http://HOST:PORT; write / ? # @ [ ] in a password as %2F %3F %23 %40 %5B %5D, "
    "or leave it out and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
)
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
    "PGCONNECT_TIMEOUT": "5",  # seconds; libpq waits for ever
}
"""Environment variables of MLflow and of what it uses that we set where the user did not."""


def resolve_uri(uri: str | None, root: Path) -> str:
    """`uri`, else MLFLOW_TRACKING_URI, else `mlflow.db` in `root`; a relative SQLite path is taken from `root`."""
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI", "").strip() or f"sqlite:///{DEFAULT_DATABASE}"
    database = database_file(uri)
    if database is None:
        return uri
    _, mark, options = uri.partition("?")
    return sqlite_uri((root / database).resolve()) + mark + options


def database_file(uri: str) -> Path | None:
    """The file of a SQLite tracking URI (`sqlite:///relative` or `sqlite:////absolute`), None for any other."""
    found = SQLITE.match(uri)
    return Path(unquote(uri[found.end() :].partition("?")[0])) if found else None


def sqlite_uri(database: Path) -> str:
    """The tracking URI of a SQLite file, whatever characters are in the absolute path `database`."""
    try:
        str(database).encode()
    except UnicodeEncodeError as error:
        fix = "rename that folder, or set MLFLOW_TRACKING_URI"
        where = str(database).encode(errors="backslashreplace").decode()
        raise InputError("MLflow cannot open a database whose path is not UTF-8", where=where, fix=fix) from error
    path = str(database).replace("%", "%25").replace("?", "%3F")  # the only ones that SQLAlchemy reads otherwise
    # MLflow makes the folder of `sqlite:///` as it is written, so with a driver's name where `%25` stands for `%`.
    return f"{'sqlite' if path == str(database) else 'sqlite+pysqlite'}:///{path}"


def connect(uri: str, experiment: str) -> tuple[MlflowClient, str]:
    """A client for `uri` and the id of `experiment`, both created where they do not exist.

    Raises TrackingError within seconds if MLflow cannot be reached, InputError if `uri` is no address.
    """
    _prepare(uri)
    database = database_file(uri)
    with mlflow_errors(uri, "open the experiment"):
        if database is None:
            probe(uri)
            return _open(uri, experiment, artifacts=None)
        database.parent.mkdir(parents=True, exist_ok=True)
        # Two processes that create the tables at once crash each other, so one creates and the others wait.
        with FileLock(f"{database}.lock", timeout=CREATION_TIMEOUT_S):
            probe(uri)
            follow_artifacts(database)
            return _open(uri, experiment, artifacts=(database.parent / FOLDER).as_uri())


def probe(uri: str) -> None:
    """Raise TrackingError unless the server or database at `uri` answers, in one try; InputError if it is no address.

    It goes the way that MLflow's client goes, through its proxies and certificates. MLflow alone would try a database
    for 100 s.
    """
    scheme = _prepare(uri)
    with mlflow_errors(uri, "reach MLflow"):
        from requests.exceptions import ProxyError

        if scheme in ("http", "https"):
            from mlflow.utils.credentials import get_default_host_creds
            from mlflow.utils.rest_utils import http_request, verify_rest_response

            options = {"max_retries": 0, "timeout": PROBE_TIMEOUT_S, "raise_on_status": False}
            response = http_request(get_default_host_creds(uri), LISTING, "GET", params={"max_results": 1}, **options)
            if response.status_code == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
                raise ProxyError("the proxy wants a user name and a password")
            if response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:  # the client tries the others again
                verify_rest_response(response, LISTING)
        elif scheme.partition("+")[0] in DATABASES:
            from mlflow.store.db.utils import create_sqlalchemy_engine

            try:
                engine = create_sqlalchemy_engine(uri)
            except ValueError:
                raise _no_address(uri) from None
            try:
                engine.connect().close()
            finally:
                engine.dispose()
        else:
            from mlflow import MlflowClient

            MlflowClient(uri)  # knows which other addresses there are


def _prepare(uri: str) -> str:
    """Set what MLflow reads when it is imported; gives the scheme of `uri`.

    Raises InputError where MLflow's client would take another host from `uri` than was meant, or none.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if uri != public(uri):
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # it would print the password with each run
    try:
        parts = urlsplit(uri)
        fits = parts.scheme not in ("http", "https") or (
            parts.port != 0  # reading it raises ValueError where it is no number
            and bool(parts.hostname)
            and uri.isprintable()
            and "@" not in parts.path
            and "\\" not in uri  # the client takes it for a /
            and not parts.query  # MLflow appends its paths to the address
            and not parts.fragment
        )
        fits = fits and not re.fullmatch(r"sqlite(\+\w+)?:/{0,2}", uri)  # a database in memory: all would be lost
    except ValueError:
        fits = False
    if not fits:
        raise _no_address(uri)
    return parts.scheme


def _no_address(uri: str) -> InputError:
    return InputError("not the address of an MLflow server or database", where=public(uri), fix=ADDRESS_FIX)


class RefusedError(TrackingError):
    """MLflow answers, but refuses this for good: another try does not help."""


@contextmanager
def mlflow_errors(uri: str, doing: str) -> Iterator[None]:
    """Turn whatever MLflow raises into one TrackingError that names the URI and the fix, and no secret."""
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    handled = sys.exception()  # of a stage that failed, whose end is being logged
    try:
        yield
    except StepToolError:
        raise
    except (MlflowException, SQLAlchemyError, OSError, ImportError, ValueError, ParseError) as error:
        chain = _chain(error, handled)
        by_network = any(isinstance(one, RequestException) for one in chain)
        told = chain[-1] if by_network else error  # the others only wrap it
        found = f"cannot {doing}: {_first_line(redact(str(told), uri)) or type(told).__name__}"
        # A traceback would show the causes as they are worded, with the password.
        cause = error if all(redact(str(one), uri) == str(one) for one in chain) else None
        not_sent = isinstance(error, ValueError) and not isinstance(error, (RequestException, JSONDecodeError))
        if not_sent or (isinstance(error, MlflowException) and error.error_code in PERMANENT):
            answers = uri.startswith(("http", *DATABASES))
            fix = "read the MLflow server's log for details" if answers else _fix(uri, chain)
            raise RefusedError(found, where=public(uri), fix=fix) from cause
        raise TrackingError(found, where=public(uri), fix=_fix(uri, chain)) from cause


def _chain(error: BaseException, handled: BaseException | None) -> list[BaseException]:
    """`error`, its cause, the cause of that, and so on. Errors that were only being handled at the time are left
    out."""
    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) and before not in [handled, *chain]:
        chain.append(before)
    return chain


def _fix(uri: str, chain: list[BaseException]) -> str:
    """What to do if MLflow cannot be reached, depending on the client's error."""
    from requests.exceptions import ProxyError, SSLError

    def met(kind: type[BaseException]) -> bool:
        return any(isinstance(one, kind) for one in chain)

    if "db upgrade" in str(chain[0]) or "locate revision" in str(chain[0]):
        address = shlex.quote(uri) if uri == public(uri) else '"$MLFLOW_TRACKING_URI"'
        return (
            f"another version of MLflow made that database: back it up, then `mlflow db upgrade {address}`; "
            "where a newer one did, move it away"
        )
    database = database_file(uri)
    if database is not None:
        return f"check that {database.name} and its folder can be written and hold an MLflow database, or move it away"
    if met(ImportError):
        driver = "write postgresql+psycopg2:// in the address" if uri.startswith("postgresql://") else "install it"
        return f"{driver}, or unset MLFLOW_TRACKING_URI to track in mlflow.db"
    if met(SSLError):
        return (
            "set MLFLOW_TRACKING_SERVER_CERT_PATH to the certificate of the authority that signed the server's, "
            "and MLFLOW_TRACKING_CLIENT_CERT_PATH where the server asks for yours"
        )
    if met(ProxyError):
        return "check HTTP_PROXY and HTTPS_PROXY, or name the server's host in NO_PROXY"
    if getattr(chain[0], "error_code", None) in UNAUTHORISED:
        return (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, "
            "to what the server accepts"
        )
    start = {
        "http": "start the server (`mlflow server --workers 1`), or ",
        **dict.fromkeys(DATABASES, "start the database, or "),
    }
    first = next((start[kind] for kind in start if uri.startswith(kind)), "")
    return f"{first}unset MLFLOW_TRACKING_URI to track in mlflow.db"


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
            return client, client.create_experiment(experiment, artifact_location=artifacts, tags=KIND)
        except MlflowException:
            found = client.get_experiment_by_name(experiment)  # another host may have been faster
            if found is None:
                raise
    if not found.experiment_id:
        fix = "set MLFLOW_TRACKING_URI to the address of an MLflow server"
        raise TrackingError("what answers there is no MLflow server", where=public(uri), fix=fix)
    if found.lifecycle_stage != "active":
        raise RefusedError(
            f"the experiment {experiment!r} was deleted",
            where=public(uri),
            fix=f"`mlflow experiments restore --experiment-id {found.experiment_id}`, or set tracking.experiment",
        )
    for key in KIND.keys() - found.tags.keys():
        client.set_experiment_tag(found.experiment_id, key, KIND[key])
    return client, found.experiment_id


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def _first_line(text: str) -> str:
    """Of what may be a page of HTML with anything in it."""
    line = (text.strip().splitlines() or [""])[0]
    return line if len(line) <= REASON_LENGTH else f"{line[:REASON_LENGTH]} ..."

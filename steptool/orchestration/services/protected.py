"""Prefect's and MLflow's server on the loopback, which do nothing for those who do not know the password.

A web browser on this machine reaches the loopback as we do, and so does every page that it shows, and every other user
of the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from steptool.orchestration.services.servers import HOST, USER, Server, Servers, answers, module, write_private


def prefect(servers: Servers, port: int, home: Path, environment: Mapping[str, str]) -> Server:
    """Prefect's server, with its data in `home`.

    By default it obeys every request, from web pages of any origin and under any host name. Here each request, over
    HTTP or in a web socket, needs the password, and pages of other origins may not ask. Prefect has no setting for the
    Host header. It needs none: a page whose host name was pointed at this machine (DNS rebinding) has an origin of its
    own, and the browser keeps Prefect's password, which is no cookie, for the pages of Prefect's origin.
    Without the password there are only the files of the pages, `/api/health` and `/api/ready`.
    """
    own = {
        "PREFECT_HOME": str(home),
        # Prefect looks for this file in ~/.prefect whatever PREFECT_HOME says.
        "PREFECT_SERVER_MEMO_STORE_PATH": str(home / "memo_store.toml"),
        "PREFECT_SERVER_API_AUTH_STRING": _prefect_password(servers),
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": _origins(port),
        # It counts taken slots in the database, and by default forgets in a restart who may give them back.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }
    return Server(
        "prefect",
        module("prefect", "server", "start", "--host", HOST, "--port", str(port)),
        lambda: answers(f"http://{HOST}:{port}/api/health"),
        {**environment, **own},
    )


def prefect_client(servers: Servers, port: int) -> dict[str, str]:
    """What flows, workers and commands need to use it."""
    return {"PREFECT_API_URL": f"http://{HOST}:{port}/api", "PREFECT_API_AUTH_STRING": _prefect_password(servers)}


def _prefect_password(servers: Servers) -> str:
    return f"{USER}:{servers.secret('prefect')}"


def mlflow(servers: Servers, port: int, auth_database: str, environment: Mapping[str, str], *options: str) -> Server:
    """MLflow's server; `auth_database` keeps its users, of whom USER administers.

    MLflow refuses pages of other origins, but for those of this machine: a page that another server of this machine
    shows, on another port, may use MLflow with the password of a browser that is logged in. There is no setting against
    that. Its check of the Host lets names such as 10.example.org pass for private addresses; here it knows two names.
    """
    file = servers.folder / "secrets" / "mlflow_auth.ini"
    own = {
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"{HOST}:*,localhost:*",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": _origins(port),
        "MLFLOW_AUTH_CONFIG_PATH": str(file),
        "MLFLOW_AUTH_ADMIN_PASSWORD": servers.secret("mlflow"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": servers.secret("mlflow_sessions"),
    }
    where = "--app-name", "basic-auth", "--workers", "1", "--host", HOST, "--port", str(port)
    return Server(
        "mlflow",
        module("mlflow", "server", *where, *options),
        lambda: answers(f"http://{HOST}:{port}/health"),
        {**environment, **own},
        prepare=lambda: write_private(file, _MLFLOW_AUTH.format(database=auth_database, user=USER)),
    )


def mlflow_client(servers: Servers) -> dict[str, str]:
    """What a client needs beside the address."""
    return {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": servers.secret("mlflow")}


_MLFLOW_AUTH = """[mlflow]
default_permission = NO_PERMISSIONS
database_uri = {database}
admin_username = {user}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""
"""The administrator's password comes from the environment. Others see nothing until they are given a permission."""


def _origins(port: int) -> str:
    return f"http://{HOST}:{port},http://localhost:{port}"

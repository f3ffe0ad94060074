"""The services of a team, as plain processes on one machine: no container engine is needed.

    python -m flows.services        `make services`; Ctrl-C stops them all

    service    what it is                                             keeps its state in
    postgres   PostgreSQL, loopback only, password                    .steptool/services/postgres
    store      localbucket, an S3-compatible server; takes any key    .steptool/services/store
    mlflow     MLflow server, basic auth, proxied artifacts           databases mlflow, mlflow_auth; bucket mlflow
    prefect    Prefect server, basic auth                             database prefect; leases on disk

They start again where they were. `infra/compose.yaml` has the same services in containers.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from flows.postgres import USER, Postgres, write_private
from flows.servers import HOST, Server, Servers, answers, any_free_port, is_free, module
from steptool.errors import StepToolError
from steptool.stages.common import WORK
from steptool.storage import write_bytes

FOLDER = WORK / "services"
PORTS = {"postgres": 5432, "store": 9000, "mlflow": 5000, "prefect": 4200}
"""Taken where they are free at the first start; what was taken then is kept."""
BUCKETS = ("dvc", "mlflow")


class Services(Servers):
    """All services. Their state is under `folder`.

    `durable` False leaves syncing to the disk to the system: what is killed loses nothing, a power cut may.
    `ports` are wanted at the first start; 0 takes any.
    """

    def __init__(self, folder: Path = FOLDER, *, durable: bool = True, ports: Mapping[str, int] = PORTS) -> None:
        super().__init__(folder, ())
        self.durable = durable
        self.ports = self._ports(ports)
        self.table = {server.name: server for server in _table(self)}

    def secret(self, name: str) -> str:
        """A password made on first use, in a file that only its owner reads."""
        path = self.folder / "secrets" / name
        if not path.exists():
            write_private(path, secrets.token_urlsafe(24))
        return path.read_text().strip()

    def environment(self) -> dict[str, str]:
        """What clients need: stages, flows, workers, `dvc` and `mlflow`."""
        return {
            "PREFECT_API_URL": f"http://{HOST}:{self.ports['prefect']}/api",
            "PREFECT_API_AUTH_STRING": f"{USER}:{self.secret('prefect')}",
            "MLFLOW_TRACKING_URI": f"http://{HOST}:{self.ports['mlflow']}",
            "MLFLOW_TRACKING_USERNAME": USER,
            "MLFLOW_TRACKING_PASSWORD": self.secret("mlflow"),
            **self.store_environment(),
        }

    def store_environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://{HOST}:{self.ports['store']}",
            "AWS_ACCESS_KEY_ID": USER,
            "AWS_SECRET_ACCESS_KEY": self.secret("store"),
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def write_environment(self) -> Path:
        """A file to `source`, which holds passwords and so is only its owner's to read."""
        path = self.folder / "environment"
        write_private(path, "".join(f"export {name}={value}\n" for name, value in self.environment().items()))
        return path

    def _ports(self, wanted: Mapping[str, int]) -> dict[str, int]:
        path = self.folder / "ports.json"
        if not path.exists():
            write_bytes(
                path, json.dumps({n: p if p and is_free(p) else any_free_port() for n, p in wanted.items()}).encode()
            )
        ports: dict[str, int] = json.loads(path.read_text())
        return ports


def _table(services: Services) -> list[Server]:
    folder, ports = services.folder, services.ports
    database = f"{USER}:{services.secret('postgres')}@{HOST}:{ports['postgres']}"
    postgres = Postgres(folder / "postgres", ports["postgres"], services.secret("postgres"), services.durable)
    buckets = folder / "store"
    auth = folder / "secrets" / "mlflow_auth.ini"

    def port(name: str) -> tuple[str, str]:
        return "--port", str(ports[name])

    def make_buckets() -> None:
        """A bucket is a folder."""
        for name in BUCKETS:
            (buckets / name).mkdir(parents=True, exist_ok=True)

    return [
        Server("postgres", postgres.command(), postgres.answers, prepare=postgres.prepare, complete=postgres.complete),
        Server(
            "store",
            module("localbucket", str(buckets), "--host", HOST, *port("store")),
            lambda: answers(f"http://{HOST}:{ports['store']}/"),
            prepare=make_buckets,
        ),
        Server(
            "mlflow",
            module("mlflow", "server", "--app-name", "basic-auth", "--workers", "1", "--host", HOST, *port("mlflow")),
            lambda: answers(f"http://{HOST}:{ports['mlflow']}/health"),
            {
                "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg2://{database}/mlflow",
                "MLFLOW_SERVE_ARTIFACTS": "true",
                "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow",
                "MLFLOW_AUTH_CONFIG_PATH": str(auth),
                "MLFLOW_AUTH_ADMIN_PASSWORD": services.secret("mlflow"),
                "MLFLOW_FLASK_SERVER_SECRET_KEY": services.secret("mlflow_sessions"),
                **services.store_environment(),
            },
            prepare=lambda: write_private(auth, MLFLOW_AUTH.format(database=database, user=USER)),
        ),
        Server(
            "prefect",
            module("prefect", "server", "start", "--host", HOST, *port("prefect")),
            lambda: answers(f"http://{HOST}:{ports['prefect']}/api/health"),
            {
                "PREFECT_HOME": str(folder / "prefect"),
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{database}/prefect",
                "PREFECT_SERVER_API_AUTH_STRING": f"{USER}:{services.secret('prefect')}",
                # It counts taken slots in the database, and by default forgets in a restart who may give them back.
                "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
                "PREFECT_SERVER_MEMO_STORE_PATH": str(folder / "prefect" / "memo_store.toml"),
            },
        ),
    ]


MLFLOW_AUTH = """[mlflow]
default_permission = NO_PERMISSIONS
database_uri = postgresql+psycopg2://{database}/mlflow_auth
admin_username = {user}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""
"""The administrator's password comes from the environment. Others see nothing until they are given a permission."""


def run(services: Services) -> int:
    """Run until Ctrl-C; what dies in between is started again. The exit status."""
    try:
        services.run(lambda: _greeting(services.environment(), services.write_environment(), services.folder))
    except StepToolError as error:
        print(f"steptool: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _greeting(environment: Mapping[str, str], file: Path, folder: Path) -> str:
    shown = {name: value for name, value in environment.items() if "SECRET" not in name and "PASSWORD" not in name}
    lines = [f"  {name}={value if 'AUTH' not in name else '…'}" for name, value in shown.items()]
    return "\n".join(
        [
            "",
            "All services run. In another terminal:",
            f"  source {file}",
            "  dvc remote add --default --local services s3://dvc",
            *lines,
            f"User {USER}; passwords are in {folder / 'secrets'}. Ctrl-C stops everything.",
        ]
    )


if __name__ == "__main__":
    sys.exit(run(Services()))

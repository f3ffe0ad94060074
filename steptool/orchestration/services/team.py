"""The services of a team, as plain processes on one machine: no container engine is needed.

    python -m steptool.orchestration.services.team        `make services`; Ctrl-C stops them all

    service    what it is                                             keeps its state in
    postgres   PostgreSQL, loopback only, password                    .steptool/services/postgres
    store      localbucket, an S3-compatible server, signed requests  .steptool/services/store
    mlflow     MLflow server, basic auth, proxied artifacts           databases mlflow, mlflow_auth; bucket mlflow
    prefect    Prefect server, basic auth                             database prefect; leases on disk

They start again where they were. `infra/compose.yaml` has the same services in containers.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from steptool.config.places import WORK
from steptool.core.errors import StepToolError
from steptool.core.storage import write_bytes
from steptool.orchestration.services.postgres import Postgres
from steptool.orchestration.services.protected import mlflow, mlflow_client, prefect, prefect_client
from steptool.orchestration.services.servers import HOST, USER, Server, Servers, answers, any_free_port, is_free, module

FOLDER = WORK / "services"
PORTS = {"postgres": 5432, "store": 9000, "mlflow": 5000, "prefect": 4200}
"""Taken where they are free at the first start; what was taken then is kept."""
BUCKETS = ("dvc", "mlflow")
STORE = "steptool.orchestration.services.store"


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

    def environment(self) -> dict[str, str]:
        """What clients need: stages, flows, workers, `dvc` and `mlflow`."""
        return {
            **prefect_client(self, self.ports["prefect"]),
            "MLFLOW_TRACKING_URI": f"http://{HOST}:{self.ports['mlflow']}",
            **mlflow_client(self),
            **self.store_environment(),
        }

    def store_environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://{HOST}:{self.ports['store']}",
            "AWS_ACCESS_KEY_ID": USER,
            "AWS_SECRET_ACCESS_KEY": self.secret("store"),
            "AWS_DEFAULT_REGION": "us-east-1",
        }

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

    def make_buckets() -> None:
        """A bucket is a folder."""
        for name in BUCKETS:
            (buckets / name).mkdir(parents=True, exist_ok=True)

    return [
        Server("postgres", postgres.command(), postgres.answers, prepare=postgres.prepare, complete=postgres.complete),
        Server(
            "store",
            module(STORE, str(buckets), "--host", HOST, "--port", str(ports["store"])),
            lambda: answers(f"http://{HOST}:{ports['store']}/"),
            services.store_environment(),
            prepare=make_buckets,
        ),
        mlflow(
            services,
            ports["mlflow"],
            f"postgresql+psycopg2://{database}/mlflow_auth",
            {
                "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg2://{database}/mlflow",
                "MLFLOW_SERVE_ARTIFACTS": "true",
                "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow",
                **services.store_environment(),
            },
        ),
        prefect(
            services,
            ports["prefect"],
            folder / "prefect",
            {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{database}/prefect"},
        ),
    ]


def run(services: Services) -> int:
    """Run until Ctrl-C; what dies in between is started again. The exit status."""
    try:
        services.run(lambda: _greeting(services.environment(), services))
    except StepToolError as error:
        print(f"steptool: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _greeting(environment: Mapping[str, str], services: Services) -> str:
    file = services.write_environment(environment)
    shown = {name: value for name, value in environment.items() if not re.search("SECRET|PASSWORD|AUTH", name)}
    return "\n".join(
        [
            "",
            "All services run. In another terminal:",
            f"  source {shlex.quote(str(file))}",
            "  dvc remote add --default --local services s3://dvc",
            *(f"  {name}={value}" for name, value in shown.items()),
            f"MLflow's pages ask for the user {USER} and a password: echo $MLFLOW_TRACKING_PASSWORD",
            "Prefect's pages ask for a password once: echo $PREFECT_API_AUTH_STRING",
            "Ctrl-C stops everything.",
        ]
    )


if __name__ == "__main__":
    sys.exit(run(Services()))

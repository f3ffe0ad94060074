"""The services of a team, as plain processes on one machine: no container engine is needed.

    python -m flows.services        `make services`; Ctrl-C stops them all

    service    what it is                                             keeps its state in
    postgres   PostgreSQL, loopback only, password                    .steptool/services/postgres
    store      localbucket, an S3-compatible server; takes any key    .steptool/services/store
    mlflow     MLflow server, basic auth, proxied artifacts           databases mlflow, mlflow_auth; bucket mlflow
    prefect    Prefect server, basic auth                             database prefect; leases on disk

Every one dies with this process, by kill -9 too, and starts again where it was. `infra/compose.yaml` has the same
services in containers.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from flows.postgres import HOST, USER, Postgres, write_private
from steptool.cli import QUIET
from steptool.errors import StepToolError
from steptool.stages.common import WORK
from steptool.storage import write_bytes

FOLDER = WORK / "services"
PORTS = {"postgres": 5432, "store": 9000, "mlflow": 5000, "prefect": 4200}
"""Taken where they are free at the first start; what was taken then is kept."""
BUCKETS = ("dvc", "mlflow")
READY_S = 600.0
"""The first start of Prefect and MLflow makes some hundred tables."""
STOP_S = 15.0
POLL_S = 0.3
WATCH_S = 1.0


@dataclass(frozen=True)
class Service:
    name: str
    command: tuple[str, ...]
    is_ready: Callable[[], bool]
    environment: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[], None] = lambda: None
    """Before every start."""
    complete: Callable[[], None] = lambda: None
    """Once it is ready."""


class Services:
    """All services, in the order in which they need each other. Their state is under `folder`.

    `durable` False leaves syncing to the disk to the system: what is killed loses nothing, a power cut may.
    `ports` are wanted at the first start; 0 takes any.
    """

    def __init__(self, folder: Path = FOLDER, *, durable: bool = True, ports: Mapping[str, int] = PORTS) -> None:
        self.folder, self.durable = folder.resolve(), durable
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ports = self._ports(ports)
        self.table = {service.name: service for service in _table(self)}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start a service and wait until it answers. Raises StepToolError, with the end of its log, if it does not."""
        service = self.table[name]
        service.prepare()
        with self.log(name).open("ab") as log:
            # The supervisor ends it, and all that it started, when this process is gone and its pipe with it.
            child = subprocess.Popen(
                [sys.executable, "-m", "flows.supervisor", *service.command],
                env=os.environ | QUIET | service.environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running[name] = child
        deadline = time.monotonic() + READY_S
        while True:
            is_ready = service.is_ready()
            # Something else may answer on its port: it must be there, too.
            if is_ready and child.poll() is None:
                break
            if child.poll() is not None or time.monotonic() > deadline:
                raise StepToolError(
                    f"{name} does not answer: {self._last_words(name)}",
                    where=str(self.log(name)),
                    fix="mend what its log says, then run the same command again",
                )
            time.sleep(POLL_S)
        service.complete()

    def start_all(self) -> None:
        for name in self.table:
            self.start(name)

    def stop_all(self) -> None:
        """The last started first: nobody loses what it needs before it has ended itself."""
        for name in reversed(list(self._running)):
            child = self._running.pop(name)
            if child.stdin is not None:
                child.stdin.close()
            child.wait(STOP_S)

    def ended(self) -> list[str]:
        """Services that were started and run no more."""
        return [name for name, child in self._running.items() if child.poll() is not None]

    def supervisor(self, name: str) -> int:
        """Process id of the supervisor of a running service."""
        return self._running[name].pid

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

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
            write_bytes(path, json.dumps({name: _free_port(port) for name, port in wanted.items()}).encode())
        ports: dict[str, int] = json.loads(path.read_text())
        return ports

    def _last_words(self, name: str) -> str:
        return " / ".join(self.log(name).read_text(errors="replace").splitlines()[-3:])


def _table(services: Services) -> list[Service]:
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
        Service("postgres", postgres.command(), postgres.answers, prepare=postgres.prepare, complete=postgres.complete),
        Service(
            "store",
            _module("localbucket", str(buckets), "--host", HOST, *port("store")),
            lambda: _answers(f"http://{HOST}:{ports['store']}/"),
            prepare=make_buckets,
        ),
        Service(
            "mlflow",
            _module("mlflow", "server", "--app-name", "basic-auth", "--workers", "1", "--host", HOST, *port("mlflow")),
            lambda: _answers(f"http://{HOST}:{ports['mlflow']}/health"),
            {
                "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg2://{database}/mlflow",
                "MLFLOW_SERVE_ARTIFACTS": "true",
                "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow",
                "MLFLOW_AUTH_CONFIG_PATH": str(auth),
                "MLFLOW_AUTH_ADMIN_PASSWORD": services.secret("mlflow"),
                "MLFLOW_FLASK_SERVER_SECRET_KEY": services.secret("mlflow_sessions"),
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                **services.store_environment(),
            },
            prepare=lambda: write_private(auth, MLFLOW_AUTH.format(database=database, user=USER)),
        ),
        Service(
            "prefect",
            _module("prefect", "server", "start", "--host", HOST, *port("prefect")),
            lambda: _answers(f"http://{HOST}:{ports['prefect']}/api/health"),
            {
                "PREFECT_HOME": str(folder / "prefect"),
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{database}/prefect",
                "PREFECT_SERVER_API_AUTH_STRING": f"{USER}:{services.secret('prefect')}",
                # It counts taken slots in the database, and by default forgets in a restart who may give them back.
                "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
                "PREFECT_SERVER_MEMO_STORE_PATH": str(folder / "prefect" / "memo_store.toml"),
                "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
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


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name, *arguments)


def _answers(url: str) -> bool:
    try:
        urlopen(url, timeout=5).close()  # noqa: S310  always http
    except HTTPError as refused:
        return refused.code < 500
    except (URLError, OSError):
        return False
    return True


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StepToolError("no free port", fix="end some of the servers on this machine")


def run(services: Services) -> int:
    """Run until Ctrl-C; what dies in between is started again. The exit status."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        for name in services.table:
            print(f"starting {name} on {HOST}:{services.ports[name]}", flush=True)
            services.start(name)
        print(_greeting(services.environment(), services.write_environment(), services.folder), flush=True)
        while True:
            time.sleep(WATCH_S)
            for name in services.ended():
                print(f"{name} ended; starting it again (see {services.log(name)})", flush=True)
                services.start(name)
    except KeyboardInterrupt:
        return 0
    except StepToolError as error:
        print(f"steptool: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        print("stopping", flush=True)
        services.stop_all()


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

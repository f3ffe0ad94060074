"""One machine, one command: the Prefect server, a worker for this checkout, and MLflow's pages, all on loopback.

    make serve        until Ctrl-C or SIGTERM; then nothing of it is left, nor if it is killed

The server keeps its data in `.steptool/prefect`. For a team, see `make services`. Both pages ask for a password.
"""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
from pathlib import Path

from steptool.config.places import PARAMS, WORK
from steptool.config.settings import load_params
from steptool.core.errors import InputError, StepToolError
from steptool.orchestration.machines import CLONE_VARIABLE
from steptool.orchestration.services.lost import WORKER
from steptool.orchestration.services.protected import mlflow, mlflow_client, prefect, prefect_client
from steptool.orchestration.services.servers import HOST, USER, Server, Servers, is_free, module
from steptool.system.environment import QUIET
from steptool.tracking.client import database_file
from steptool.tracking.run import Tracking

POOL = "cpu"
"""What infra/prefect.yaml sends to this machine."""
POLL_S = 5
"""Between a worker's looks for new work, in seconds."""


def serve(port: int, mlflow_port: int) -> None:
    """Run until a signal. Raises InputError where a port is taken, StepToolError where a server does not come up."""
    root = Path.cwd()
    tracking = Tracking(None, load_params(PARAMS).tracking.experiment)
    tracking.client  # noqa: B018  creates the database: two processes that do it at once crash each other
    database = database_file(tracking.uri)
    for wanted in [port, *([mlflow_port] if database else [])]:
        if not is_free(wanted):
            raise InputError(
                f"port {wanted} is taken",
                where=HOST,
                fix="end what uses it, or choose others: make serve PREFECT_PORT=4300 MLFLOW_PORT=5100",
            )
    servers = Servers(root / WORK / "serve", ())
    home = root / WORK / "prefect"
    client = prefect_client(servers, port)
    environment = client | {
        "PREFECT_HOME": str(home),
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(home / "storage"),  # in ~/.prefect whatever PREFECT_HOME says
        "PREFECT_WORKER_QUERY_SECONDS": str(POLL_S),
        "PYTHONUNBUFFERED": "1",
        CLONE_VARIABLE: str(root),
    }
    deploy_once = functools.cache(lambda: _run("steptool.cli", "deploy", environment))  # what is switched off stays so
    end_lost_runs = functools.partial(_run, "steptool.orchestration.services.lost", POOL, environment)
    table = [
        prefect(servers, port, home, environment),
        Server(
            "worker",
            module("prefect", "worker", "start", "--pool", POOL, "--name", WORKER),
            lambda: True,
            environment,
            prepare=lambda: (deploy_once(), end_lost_runs()),
            clear=end_lost_runs,
        ),
    ]
    if database:
        artifacts = "--no-serve-artifacts", "--default-artifact-root", (database.parent / "mlruns").as_uri()
        users = f"sqlite:///{WORK / 'serve' / 'secrets' / 'mlflow_users.db'}"
        table.insert(0, mlflow(servers, mlflow_port, users, {"MLFLOW_BACKEND_STORE_URI": tracking.uri}, *artifacts))
        client |= mlflow_client(servers)
    servers.table = {server.name: server for server in table}
    url, shown = f"http://{HOST}:{port}", f"http://{HOST}:{mlflow_port}" if database else tracking.public_uri
    servers.run(lambda: _welcome(url, shown, servers.write_environment(client), has_pages=database is not None))


def _run(name: str, argument: str, environment: dict[str, str]) -> None:
    """One of our modules, which needs the server. In a session of its own: a Ctrl-C does not end it half way."""
    done = subprocess.run(
        module(name, argument),
        env=QUIET | os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    if done.returncode:
        said = done.stderr.strip()[-500:].removeprefix("steptool: ")
        raise StepToolError(f"`python -m {name} {argument}` failed: {said}", fix="mend that, then run it again")


def _welcome(url: str, mlflow: str, environment: Path, *, has_pages: bool) -> str:
    passwords = """
  echo $PREFECT_API_AUTH_STRING                the password that Prefect's pages ask for, once"""
    if has_pages:
        passwords += f"""
  echo $MLFLOW_TRACKING_PASSWORD               the one that MLflow's pages ask for; the user is {USER}"""
    return f"""
Prefect   {url}
MLflow    {mlflow}

In another terminal:
  source {shlex.quote(str(environment))}{passwords}
  prefect deployment run improve/nightly       sample new trajectories, train, evaluate, propose
  steptool approvals                           what waits for a person (promote.approval: human)
Schedules and the automation train-on-new-data are switched on under Deployments and Automations.
Ctrl-C stops everything, also runs; a run that is started again skips the stages that are done.
"""

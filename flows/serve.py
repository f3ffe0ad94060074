"""One machine, one command: the Prefect server, a worker for this checkout, and MLflow's pages, all on loopback.

    make serve        until Ctrl-C or SIGTERM; then nothing of it is left, nor if it is killed

The server keeps its data in `.steptool/prefect`. For a team, see `make services`.
"""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

from flows.node import CLONE_VARIABLE
from flows.servers import HOST, Server, Servers, answers, is_free, module
from steptool.errors import InputError, StepToolError
from steptool.params import load_params
from steptool.registry.client import database_file
from steptool.registry.tracking import Tracking
from steptool.stages.common import PARAMS, WORK

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
    url, mlflow_url = f"http://{HOST}:{port}", f"http://{HOST}:{mlflow_port}"
    environment = _environment(root, f"{url}/api")
    where = "--host", HOST, "--port"
    table = [
        Server(
            "prefect",
            module("prefect", "server", "start", *where, str(port)),
            lambda: answers(f"{url}/api/health"),
            environment,
        ),
        Server(
            "worker",
            module("prefect", "worker", "start", "--pool", "cpu"),
            lambda: True,
            environment,
            prepare=functools.cache(lambda: _deploy(environment)),  # once: what is switched on or off later stays
        ),
    ]
    if database:
        artifacts = "--no-serve-artifacts", "--default-artifact-root", (database.parent / "mlruns").as_uri()
        mlflow = "server", "--workers", "1", "--backend-store-uri", tracking.uri, *artifacts, *where, str(mlflow_port)
        table.insert(0, Server("mlflow", module("mlflow", *mlflow), lambda: answers(f"{mlflow_url}/health")))
    Servers(root / WORK / "serve", table).run(lambda: _welcome(url, mlflow_url if database else tracking.public_uri))


def _environment(root: Path, api: str) -> dict[str, str]:
    home = root / WORK / "prefect"
    # Prefect looks for two of its files in ~/.prefect whatever PREFECT_HOME says.
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_MEMO_STORE_PATH": str(home / "memo_store.toml"),
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(home / "storage"),
        "PREFECT_API_URL": api,
        "PREFECT_WORKER_QUERY_SECONDS": str(POLL_S),
        "PYTHONUNBUFFERED": "1",
        CLONE_VARIABLE: str(root),
    }


def _deploy(environment: dict[str, str]) -> None:
    command = module("steptool.cli", "deploy")
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StepToolError(f"does not deploy: {done.stderr.strip()[-500:]}", where="infra/prefect.yaml")


def _welcome(url: str, mlflow: str) -> str:
    return f"""
Prefect   {url}
MLflow    {mlflow}

In another terminal:
  export PREFECT_API_URL={url}/api
  prefect deployment run improve/nightly       sample new trajectories, train, evaluate, propose
  steptool approvals                           what waits for a person (promote.approval: human)
Schedules and the automation train-on-new-data are switched on under Deployments and Automations.
Ctrl-C stops everything; runs go on from where they were when started again.
"""

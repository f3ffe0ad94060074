"""One machine, one command: the Prefect server, a worker for this checkout, and MLflow's pages, all on loopback.

    make serve        until Ctrl-C or SIGTERM; then nothing of it is left, nor if it is killed

The server keeps its data in `.steptool/prefect`. For a team, see `make services`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from flows.node import CLONE_VARIABLE
from flows.process import Processes, Stopped
from steptool.errors import InputError, StepToolError
from steptool.params import load_params
from steptool.registry.client import database_file
from steptool.registry.tracking import Tracking
from steptool.stages.common import PARAMS, WORK

HOST = "127.0.0.1"
START_S = 300.0
"""Longest wait for a service to answer."""
POLL_S = 5
"""Between a worker's looks for new work, in seconds."""


def serve(port: int, mlflow_port: int) -> None:
    """Run until a signal. Raises InputError where a port is taken, StepToolError where a service ends by itself."""
    root = Path.cwd()
    tracking = Tracking(None, load_params(PARAMS).tracking.experiment)
    tracking.client  # noqa: B018  creates the database: two processes that do it at once crash each other
    database = database_file(tracking.uri)
    for wanted in [port, *([mlflow_port] if database else [])]:
        _check_free(wanted)
    url = f"http://{HOST}:{port}"
    services = _Services(_environment(root, f"{url}/api"), root / WORK / "serve")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        services.start("prefect", _python("prefect", "server", "start", "--host", HOST, "--port", str(port)))
        if database:
            services.start("mlflow", _mlflow(mlflow_port, tracking.uri, database.parent))
        services.wait_for("prefect", f"{url}/api/health")
        services.run("deploy", _python("steptool.cli", "deploy"))
        services.start("worker", _python("prefect", "worker", "start", "--pool", "cpu"))
        if database:
            services.wait_for("mlflow", f"http://{HOST}:{mlflow_port}/health")
        print(_welcome(url, f"http://{HOST}:{mlflow_port}" if database else tracking.public_uri), flush=True)
        services.wait()
    except KeyboardInterrupt:
        print("\nstopping", flush=True)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would leave the rest running
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        services.stop()


class _Services:
    """Processes that should not end, each with a log file."""

    def __init__(self, environment: Mapping[str, str], logs: Path) -> None:
        self._environment, self._logs = environment, logs
        self._workers, self._servers = Processes(), Processes()
        self._threads: list[threading.Thread] = []
        self._ended: str | None = None
        self._someone_ended = threading.Event()
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, command: Sequence[str]) -> None:
        def target() -> None:
            try:
                said = self._follow(name, command)
            except Stopped:
                return
            self._ended = self._ended or said
            self._someone_ended.set()

        thread = threading.Thread(target=target, name=name)
        thread.start()
        self._threads.append(thread)

    def run(self, name: str, command: Sequence[str]) -> None:
        """Run to the end. Raises StepToolError if it fails."""
        if (said := self._follow(name, command)) is not None:
            raise StepToolError(said, where=name, fix=f"see {self._logs / name}.log")

    def wait_for(self, name: str, url: str) -> None:
        """Until `url` answers."""
        deadline = time.monotonic() + START_S
        while not _answers(url):
            if self._someone_ended.wait(0.5):
                self.wait()
            if time.monotonic() > deadline:
                raise StepToolError(f"did not answer within {START_S:g} s", where=name, fix=f"see {self._logs}")

    def wait(self) -> None:
        """Until one of them ends, which is an error."""
        while not self._someone_ended.wait(1.0):  # in slices, so that a signal is heard
            continue
        raise StepToolError(self._ended or "ended by itself", where="serve", fix=f"see the logs in {self._logs}")

    def stop(self) -> None:
        """The worker first: it reports to the server."""
        self._workers.stop()
        self._servers.stop()
        for thread in self._threads:
            thread.join()

    def _follow(self, name: str, command: Sequence[str]) -> str | None:
        """What went wrong, None if nothing did."""
        last: deque[str] = deque(maxlen=5)
        processes = self._workers if name == "worker" else self._servers
        with (self._logs / f"{name}.log").open("w", encoding="utf-8") as log:

            def on_line(line: str) -> None:
                last.append(line)
                print(line, file=log, flush=True)

            code = processes.run(command, cwd=Path.cwd(), environment=self._environment, on_line=on_line)
        return f"{name} ended with {code}: {' / '.join(last)}" if code != 0 or name != "deploy" else None


def _environment(root: Path, api: str) -> dict[str, str]:
    home = root / WORK / "prefect"
    # Prefect looks for two of its files in ~/.prefect whatever PREFECT_HOME says.
    return {
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_MEMO_STORE_PATH": str(home / "memo_store.toml"),
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(home / "storage"),
        "PREFECT_API_URL": api,
        "PREFECT_WORKER_QUERY_SECONDS": str(POLL_S),
        "PYTHONUNBUFFERED": "1",
        CLONE_VARIABLE: str(root),
    }


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _mlflow(port: int, uri: str, folder: Path) -> list[str]:
    artifacts = (folder / "mlruns").as_uri()
    where = ["--backend-store-uri", uri, "--no-serve-artifacts", "--default-artifact-root", artifacts]
    return _python("mlflow", "server", "--workers", "1", "--host", HOST, "--port", str(port), *where)


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as fault:
            raise InputError(
                f"port {port} is taken",
                where=HOST,
                fix="end what uses it, or choose others: make serve PREFECT_PORT=4300 MLFLOW_PORT=5100",
            ) from fault


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310  our own, http on loopback
            return True
    except OSError:
        return False


def _welcome(url: str, mlflow: str) -> str:
    return f"""
Prefect   {url}
MLflow    {mlflow}

In another terminal:
  export PREFECT_API_URL={url}/api
  prefect deployment run improve/nightly       run what has changed, then propose the candidate
  steptool approvals                           what waits for a person (promote.approval: human)
Schedules and the automation train-on-new-data are switched on under Deployments and Automations.
Ctrl-C stops everything; runs go on from where they were when started again.
"""

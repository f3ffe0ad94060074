"""A team's services, an orchestrator's workspace and nodes, to break."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows.node import remote_stage
from flows.pipeline import pipeline
from steptool.orchestration.services.team import PORTS, Services
from tests.orchestration.conftest import commit_all, dvc, sh
from tests.orchestration.network import Proxy
from tests.orchestration.test_process import wait_for

ROOT = Path(__file__).parents[2]
SETTINGS = {"PREFECT_API_URL": PREFECT_API_URL, "PREFECT_API_AUTH_STRING": PREFECT_API_AUTH_STRING}
START_S = 240
"""For a process to import Prefect and answer, on a busy machine."""
Popen = subprocess.Popen[bytes]


@contextmanager
def team(folder: Path, *names: str) -> Iterator[Services]:
    """Services, whose settings hold in this process too, with a deployment `stage/gpu` in the pool `gpu`."""
    made = Services(folder, durable=False, ports=dict.fromkeys(PORTS, 0))
    clients = {name: value for name, value in made.environment().items() if "mlflow" in names or "MLFLOW" not in name}
    settings = {setting: clients[name] for name, setting in SETTINGS.items()}
    try:
        for name in names:
            made.start(name)
        with pytest.MonkeyPatch.context() as patch, temporary_settings(settings):
            for name, value in clients.items():
                patch.setenv(name, value)
            with get_client(sync_client=True) as client:
                client.create_work_pool(WorkPoolCreate(name="gpu", type="process"))
            source = remote_stage.from_source(str(ROOT), "flows/node.py:remote_stage")
            source.deploy("gpu", work_pool_name="gpu", print_next_steps=False)
            yield made
    finally:
        made.stop_all()


class Site:
    """The orchestrator's workspace, an S3 server, and nodes that come and go."""

    def __init__(self, services: Services, root: Path, base: Path, stack: ExitStack) -> None:
        self.services, self.root, self.base, self._stack = services, root, base, stack
        self.bucket = services.folder / "store" / "dvc" / base.name
        self.network = Proxy(("127.0.0.1", services.ports["store"]))
        stack.callback(self.network.close)
        if not (root / "params.yaml").exists():
            (root / "params.yaml").write_text("seed: 17\n")
        dvc(root, "remote", "add", "-d", "shared", f"s3://dvc/{base.name}")
        dvc(root, "remote", "modify", "shared", "endpointurl", services.environment()["AWS_ENDPOINT_URL"])
        commit_all(root)

    def start_node(self, name: str) -> tuple[Path, Popen]:
        """Its clone, and its worker, which is online."""
        return self.make_clone(name), self.start_worker(name)

    def make_clone(self, name: str) -> Path:
        """In a home of its own, which reaches the object store through `network`."""
        home, clone = self.base / name, self.base / name / "clone"
        home.mkdir()
        sh(home, "git", "clone", "-q", str(self.root), str(clone))
        through_the_network = f"http://127.0.0.1:{self.network.port}"
        dvc(clone, "remote", "modify", "--local", "shared", "endpointurl", through_the_network)
        dvc(clone, "remote", "modify", "--local", "shared", "jobs", "1")
        return clone

    def start_worker(self, name: str) -> Popen:
        home = self.base / name
        clients = self.services.environment()
        own = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(home),
            "STEPTOOL_CLONE": str(home / "clone"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            **{key: value for key, value in clients.items() if not key.startswith("MLFLOW") and "ENDPOINT" not in key},
        }
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "gpu", "--name", name]
        worker = self._stack.enter_context(running(command, home, own))
        wait_for(lambda: name in online_workers(), START_S)
        return worker

    def run_pipeline(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, State]:
        """In this process; the final state of every stage's task, by its name."""
        monkeypatch.chdir(self.root)
        state = pipeline(gpu="stage/gpu", return_state=True)
        with get_client(sync_client=True) as client:
            runs = [run for run in client.read_task_runs() if run.flow_run_id == state.state_details.flow_run_id]
        return {run.name.rsplit("-", 1)[0]: run.state for run in runs if run.state and "resources:gpu" in run.tags}


@contextmanager
def running(command: list[str], folder: Path, environment: os._Environ[str] | dict[str, str]) -> Iterator[Popen]:
    """A server, gone with its children at the end."""
    log = (folder / f"{Path(command[0]).name}-{time.monotonic_ns()}.log").open("wb")
    with log, subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                for process in [*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)]:
                    kill(process.pid)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def online_workers() -> set[str]:
    with get_client(sync_client=True) as client:
        return {worker.name for worker in client.read_workers_for_work_pool("gpu") if worker.status == "ONLINE"}


def gpu(cmd: str, out: str, deps: list[str] | None = None, **meta: object) -> dict[str, object]:
    return {"cmd": cmd, "outs": [out], "meta": {"resources": "gpu", **meta}, **({"deps": deps} if deps else {})}

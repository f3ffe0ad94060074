"""Stages on a node of their own, over an S3 server, while things break.

    orchestrator: clone, in this process or one that is killed      node: clone, HOME, environment, process worker
                 └──────────── S3 (localbucket, which takes any key) ─── proxy that can be cut ────┘

Git, the Prefect API and the S3 server are all that they share.
"""

from __future__ import annotations

import contextvars
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows.node import remote_stage
from flows.pipeline import pipeline
from flows.services import Services
from tests.flows.conftest import dvc, sh
from tests.flows.network import Proxy
from tests.flows.test_process import gone, wait_for
from tests.flows.test_services import needs_postgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), needs_postgres]
SETTINGS = {"PREFECT_API_URL": PREFECT_API_URL, "PREFECT_API_AUTH_STRING": PREFECT_API_AUTH_STRING}
ROOT = Path(__file__).parents[2]
Workspace = Callable[[dict[str, object]], Path]
Popen = subprocess.Popen[bytes]
START_S = 120
"""For a process to import Prefect and answer, on a busy machine."""
MB = 1_000_000


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """PostgreSQL, the S3 server and a Prefect server on it, whose settings hold in this process too."""
    made = Services(tmp_path_factory.mktemp("services"), durable=False)
    try:
        for name in ("postgres", "store", "prefect"):
            made.start(name)
        with (
            pytest.MonkeyPatch.context() as patch,
            temporary_settings({setting: made.environment()[name] for name, setting in SETTINGS.items()}),
        ):
            for name, value in made.environment().items():
                if not name.startswith("MLFLOW"):
                    patch.setenv(name, value)
            with get_client(sync_client=True) as client:
                client.create_work_pool(WorkPoolCreate(name="gpu", type="process"))
            remote_stage.from_source(str(ROOT), "flows/node.py:remote_stage").deploy(
                "gpu", work_pool_name="gpu", print_next_steps=False
            )
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
        (root / "params.yaml").write_text("seed: 17\n")
        dvc(root, "remote", "add", "-d", "shared", f"s3://dvc/{base.name}")
        dvc(root, "remote", "modify", "shared", "endpointurl", services.environment()["AWS_ENDPOINT_URL"])
        sh(root, "git", "add", "-A")
        sh(root, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "all")

    def start_node(self, name: str) -> tuple[Path, subprocess.Popen[bytes]]:
        """Its clone, and its worker, which is online."""
        home, clone = self.base / name, self.base / name / "clone"
        home.mkdir()
        sh(home, "git", "clone", "-q", str(self.root), str(clone))
        through_the_network = f"http://127.0.0.1:{self.network.port}"
        dvc(clone, "remote", "modify", "--local", "shared", "endpointurl", through_the_network)
        dvc(clone, "remote", "modify", "--local", "shared", "jobs", "1")
        own = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(home),
            "STEPTOOL_CLONE": str(clone),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            **{name: value for name, value in self.services.environment().items() if "ENDPOINT" not in name},
        }
        own = {name: value for name, value in own.items() if not name.startswith("MLFLOW")}
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "gpu", "--name", name]
        worker = self._stack.enter_context(running(command, home, own))
        wait_for(lambda: name in online_workers(), START_S)
        return clone, worker

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


def runs_of(stage: str) -> list[FlowRun]:
    """Flow runs of a stage on nodes, the oldest first."""
    with get_client(sync_client=True) as client:
        return sorted((run for run in client.read_flow_runs() if run.name == stage), key=lambda run: run.created)


@pytest.fixture
def site(services: Services, tmp_path: Path, workspace: Workspace) -> Iterator[Callable[[dict[str, object]], Site]]:
    """Make one from the stages of a dvc.yaml."""
    with ExitStack() as stack:
        yield lambda stages: Site(services, workspace(stages), tmp_path, stack)


def gpu(cmd: str, out: str, deps: list[str] | None = None, **meta: object) -> dict[str, object]:
    return {"cmd": cmd, "outs": [out], "meta": {"resources": "gpu", **meta}, **({"deps": deps} if deps else {})}


def test_exit_status_and_error_travel_back_and_decide_about_a_retry(
    site: Callable[[dict[str, object]], Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every attempt leaves a line in tries; all may be tried three times.

    stage    exits with   attempts
    input         2           1
    data          3           1
    passing       1           2       the second succeeds
    """
    monkeypatch.setattr("flows.stage.RETRY_DELAYS_S", [0.1, 0.1])
    tries = tmp_path / "tries"
    passing = f"echo passing >> {tries}; test $(grep -c passing {tries}) = 2 && touch passing"
    made = site(
        {
            "input": gpu(f"echo input >> {tries}; echo 'steptool: no such task' >&2; exit 2", "input", retries=2),
            "data": gpu(f"echo data >> {tries}; echo 'steptool: 3 of 9 checks failed' >&2; exit 3", "data", retries=2),
            "passing": gpu(passing, "passing", retries=2),
        }
    )
    made.start_node("node")
    states = made.run_pipeline(monkeypatch)
    assert {name: state.name for name, state in states.items()} == {
        "input": "Failed",
        "data": "Failed",
        "passing": "Completed",
    }
    assert "no such task" in str(states["input"].message)
    assert "3 of 9 checks failed" in str(states["data"].message)
    assert sorted(tries.read_text().split()) == ["data", "input", "passing", "passing"]
    assert [run.state.name for run in runs_of("input") if run.state] == ["Exit 2"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["cancelled", "killed"])
def test_stage_on_a_node_ends_within_ten_seconds_of_its_orchestrator(
    site: Callable[[dict[str, object]], Site], tmp_path: Path, number: int
) -> None:
    """SIGTERM is how a worker ends a flow run that was cancelled."""
    pid = tmp_path / "pid"
    name = f"long-{number}"
    made = site({name: gpu(f"echo $$ > {pid}; sleep 600; touch long", "long")})
    clone, _ = made.start_node("node")
    script = "from flows.pipeline import pipeline; pipeline(gpu='stage/gpu')"
    with running([sys.executable, "-c", script], made.root, os.environ | {"PYTHONPATH": str(ROOT)}) as orchestrator:
        wait_for(lambda: pid.exists() and pid.read_text().strip(), START_S)
        time.sleep(2)  # both sides have heard of each other
        os.kill(orchestrator.pid, number)
        ended = time.monotonic()
        wait_for(lambda: gone(int(pid.read_text())), 10)
        print(f"the stage was gone after {time.monotonic() - ended:.1f} s")
        wait_for(lambda: all(run.state and run.state.is_final() for run in runs_of(name)), 30)
        orchestrator.wait(30)
    expected = "Cancelled" if number == signal.SIGTERM else "Crashed"
    assert [run.state.name for run in runs_of(name) if run.state] == [expected]
    assert not [p.pid for p in psutil.process_iter() if _works_in(p, clone)], "no orphan"
    for folder in (clone, made.root):
        FileLock(folder / ".steptool" / "pipeline.lock").acquire(timeout=1).lock.release()
        assert dvc(folder, "status", "--json"), "DVC is not locked"
        assert not (folder / ".git" / "index.lock").exists()


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(folder)
    except (psutil.Error, OSError):
        return False


def test_stage_of_a_node_that_died_runs_on_another_and_gets_its_slot(
    site: Callable[[dict[str, object]], Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worker and flow process of node `first` are killed -9 while they hold the only slot of the limit `gpu`."""
    monkeypatch.setattr("flows.stage.RETRY_DELAYS_S", [0.1, 0.1])
    monkeypatch.setattr("flows.remote.NODE_LOST_S", 6.0)
    pid = tmp_path / "pid"
    made = site({"b": gpu(f"test -e {pid} || (echo $$ > {pid}; sleep 600); echo $HOME > b", "b")})
    _, worker = made.start_node("first")

    def kill_and_replace() -> None:
        wait_for(lambda: pid.exists() and pid.read_text().strip(), START_S)
        time.sleep(3)
        flow = [process.pid for process in psutil.Process(worker.pid).children()]
        assert flow, "the worker has a flow process"
        for victim in [worker.pid, *flow]:
            kill(victim)
        wait_for(lambda: gone(int(pid.read_text())), 10)
        made.start_node("second")

    failures: list[BaseException] = []
    thread = threading.Thread(target=contextvars.copy_context().run, args=(_collect, kill_and_replace, failures))
    thread.start()
    states = made.run_pipeline(monkeypatch)
    thread.join()
    assert failures == []
    assert {name: state.name for name, state in states.items()} == {"b": "Completed"}
    assert (made.root / "b").read_text() == f"{tmp_path / 'second'}\n"
    assert [run.state.name for run in runs_of("b") if run.state] == ["Crashed", "Completed"]


def _collect(work: Callable[[], None], failures: list[BaseException]) -> None:
    try:
        work()
    except BaseException as failure:  # noqa: BLE001  the thread that joins reports it
        traceback.print_exc()
        failures.append(failure)


def test_push_that_is_cut_resumes_and_the_stage_is_not_run_again(
    site: Callable[[dict[str, object]], Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 files of 4 MB; the network to the S3 server goes in the middle, for 10 s. Files that arrived stay there."""
    runs = tmp_path / "runs"
    write = "mkdir out && for i in 1 2 3 4 5 6 7 8; do head -c 4000000 /dev/urandom > out/$i; done"
    made = site({"big": gpu(f"echo x >> {runs}; {write}", "out")})
    made.start_node("node")
    network = made.network
    network.cut_at = 18 * MB
    arrived: list[int] = []

    def mend_later() -> None:
        assert network.is_cut.wait(START_S)
        time.sleep(10)
        arrived.append(sum(file.stat().st_size == 4 * MB for file in made.bucket.rglob("*") if file.is_file()))
        network.sent = 0
        network.mend()

    thread = threading.Thread(target=mend_later)
    thread.start()
    states = made.run_pipeline(monkeypatch)
    thread.join()
    assert states["big"].name == "Completed"
    assert runs.read_text() == "x\n"
    assert 0 < arrived[0] < 8
    assert network.sent < (8 - arrived[0]) * 4 * MB + MB, "only what had not arrived was sent again"
    assert sum(file.stat().st_size for file in (made.root / "out").iterdir()) == 32 * MB
    assert "up to date" in dvc(made.root, "status")

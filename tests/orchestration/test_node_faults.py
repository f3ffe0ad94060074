"""Stages on a node of their own, over an S3 server, while things break.

    orchestrator: clone, in this process or one that is killed      node: clone, HOME, environment, process worker
                 └──────────── S3 (localbucket, requests signed) ─────── proxy that can be cut ────┘

Git, the Prefect API and the S3 server are all that they share.
"""

from __future__ import annotations

import contextvars
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun

from steptool.orchestration.services.team import Services
from tests.orchestration.conftest import dvc
from tests.orchestration.site import ROOT, START_S, Site, gpu, kill, running, team
from tests.orchestration.test_process import gone, wait_for
from tests.orchestration.test_services import needs_postgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), needs_postgres]
Workspace = Callable[[dict[str, object]], Path]
MB = 1_000_000


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with team(tmp_path_factory.mktemp("services"), "postgres", "store", "prefect") as made:
        yield made


def runs_of(stage: str) -> list[FlowRun]:
    """Flow runs of a stage on nodes, the oldest first."""
    with get_client(sync_client=True) as client:
        return sorted((run for run in client.read_flow_runs() if run.name == stage), key=lambda run: run.created)


@pytest.fixture
def site(services: Services, tmp_path: Path, workspace: Workspace) -> Iterator[Callable[[dict[str, object]], Site]]:
    """Make one from the stages of a dvc.yaml."""
    with ExitStack() as stack:
        yield lambda stages: Site(services, workspace(stages), tmp_path, stack)


def test_exit_status_and_error_travel_back_and_decide_about_a_retry(
    site: Callable[[dict[str, object]], Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every attempt leaves a line in tries; all may be tried three times.

    stage    exits with   attempts
    input         2           1
    data          3           1
    passing       1           2       the second succeeds
    """
    monkeypatch.setattr("steptool.orchestration.graph.task.RETRY_DELAYS_S", [0.1, 0.1])
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
    monkeypatch.setattr("steptool.orchestration.graph.task.RETRY_DELAYS_S", [0.1, 0.1])
    monkeypatch.setattr("steptool.orchestration.machines.remote.NODE_LOST_S", 6.0)
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

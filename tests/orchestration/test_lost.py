"""Flow runs of `make serve` whose worker is gone: they end, and give their slot back."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID, uuid4

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling, Completed, Pending, Running, State, Suspended

from steptool.orchestration.services import lost
from tests.orchestration.serving import Serving, lay_out, serving
from tests.orchestration.test_process import wait_for
from tests.registry.conftest import empty_database  # noqa: F401  a fixture

FLOWS = """
import time
from prefect import flow, suspend_flow_run

@flow
def long():
    time.sleep(3600)

@flow
def asking():
    suspend_flow_run(timeout=3600)

if __name__ == "__main__":
    for made, name in ((long, "long"), (asking, "asking")):
        source = made.from_source(".", f"slow.py:{name}")
        source.deploy("one", work_pool_name="cpu", concurrency_limit=1, print_next_steps=False)
"""


class Server:
    """Flow runs and workers, and what is done to them."""

    def __init__(self, runs: dict[str, State], workers: dict[str, str]) -> None:
        self.runs = [
            SimpleNamespace(id=uuid4(), name=name, state=state, state_type=state.type) for name, state in runs.items()
        ]
        self.workers = [SimpleNamespace(name=name, status=status) for name, status in workers.items()]
        self.ended: dict[str, str] = {}

    def read_workers_for_work_pool(self, pool: str) -> list[SimpleNamespace]:
        return self.workers

    def read_flow_runs(self, *, flow_run_filter: object, offset: int, **_: object) -> list[SimpleNamespace]:
        wanted = flow_run_filter.state.type.any_  # type: ignore[attr-defined]
        return [run for run in self.runs if run.state_type in wanted][offset : offset + 2]

    def set_flow_run_state(self, run: UUID, state: State) -> None:
        self.ended |= {found.name: state.name or "" for found in self.runs if found.id == run}


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ({}, {"running": "Crashed", "submitted": "Crashed", "cancelled": "Cancelled"}),
        ({"serve": "ONLINE"}, {"running": "Crashed", "submitted": "Crashed", "cancelled": "Cancelled"}),
        (
            {"serve": "ONLINE", "old": "OFFLINE"},
            {"running": "Crashed", "submitted": "Crashed", "cancelled": "Cancelled"},
        ),
        ({"serve": "OFFLINE", "another": "ONLINE"}, {}),
    ],
)
def test_what_is_ended(workers: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    flow run     state        its process     ends
    running      Running      gone            Crashed
    submitted    Pending      none yet        Crashed
    cancelled    Cancelling   gone            Cancelled
    alive        Running      there           no
    waiting      Suspended    none            no
    done         Completed    none            no

    Nothing ends where another worker serves the pool, too.
    """
    states = {
        "running": Running(),
        "submitted": Pending(),
        "cancelled": Cancelling(),
        "alive": Running(),
        "waiting": Suspended(),
        "done": Completed(),
    }
    made = Server(states, workers)
    alive = {str(run.id) for run in made.runs if run.name == "alive"}

    @contextmanager
    def server() -> Iterator[Server]:
        yield made

    monkeypatch.setattr(lost, "server", server)
    monkeypatch.setattr(lost, "_alive", lambda: alive)
    monkeypatch.setattr(lost, "ENDING_S", 0.0)
    assert sorted(lost.end_lost_runs("cpu")) == sorted(expected)
    assert made.ended == expected


@contextmanager
def client_of(served: Serving) -> Iterator[SyncPrefectClient]:
    own = served.environment()
    settings = {PREFECT_API_URL: own["PREFECT_API_URL"], PREFECT_API_AUTH_STRING: own["PREFECT_API_AUTH_STRING"]}
    with temporary_settings(settings), get_client(sync_client=True) as client:
        yield client


def start(client: SyncPrefectClient, name: str, expected: str, within_s: float) -> UUID:
    """Run a deployment; its flow run, once it has this state."""
    run = client.create_flow_run_from_deployment(client.read_deployment_by_name(f"{name}/one").id)
    wait_for(lambda: state(client, run.id) == expected, within_s)
    return run.id


def state(client: SyncPrefectClient, run: UUID) -> str | None:
    found = client.read_flow_run(run).state
    return found.name if found else None


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_deployment_runs_again_after_serve_was_stopped(
    number: signal.Signals,
    tmp_path: Path,
    empty_database: Path,  # noqa: F811
) -> None:
    """
    make serve     long: Running    asking: Suspended    Ctrl-C, or kill -9
    make serve     long: Crashed    asking: Suspended    long again: Running; its worker alone is killed: Crashed
    """
    (lay_out(tmp_path, empty_database) / "slow.py").write_text(FLOWS)
    with serving(tmp_path) as served:
        served.type("slow")
        with client_of(served) as client:
            asking = start(client, "asking", "Suspended", 120)
            first = start(client, "long", "Running", 120)
        served.stop(number)
    with serving(tmp_path) as served, client_of(served) as client:
        assert (state(client, first), state(client, asking)) == ("Crashed", "Suspended")
        began = time.monotonic()
        second = start(client, "long", "Running", 120)
        assert time.monotonic() - began < 60, "it waited for a slot"
        [worker] = [
            process
            for process in psutil.Process(served.process.pid).children(recursive=True)
            if process.cmdline()[1:5] == ["-m", "prefect", "worker", "start"]
        ]
        worker.kill()
        wait_for(lambda: state(client, second) == "Crashed", 120)
        start(client, "long", "Running", 120)
        assert state(client, asking) == "Suspended"

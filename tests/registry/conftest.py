"""A real MLflow on SQLite for every test: one database is created (that takes seconds), each test gets a copy."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from steptool.core.types import Revision
from steptool.evaluation.bootstrap import Estimate
from steptool.evaluation.built_in import METRICS
from steptool.evaluation.metrics import Evaluation, Measure, group_tasks
from steptool.registry.models import register
from steptool.testing import conditions
from steptool.tracking.run import PARENT_VARIABLE, Tracking


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MLFLOW_")] + [PARENT_VARIABLE]:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mlflow")
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    assert Tracking(f"sqlite:///{root}/mlflow.db", "Default").experiment_id == "0"
    if uri is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    return root / "mlflow.db"


@pytest.fixture
def tracking(tmp_path: Path, empty_database: Path) -> Tracking:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return Tracking(None, "test", root=tmp_path)


@pytest.fixture(scope="session")
def evaluation_of() -> Callable[..., Evaluation]:
    """An evaluation with these verdicts: "110-" is four tasks, the third unsolved, the fourth without a verdict.
    Everything counts as finished unless `finish_rate` says otherwise, and as not grounded unless `grounded`, written
    like the verdicts, does."""

    def build(
        verdicts: str, name: str = "ppo", *, finish_rate: float = 1.0, max_calls: int = 8, grounded: str = ""
    ) -> Evaluation:
        solved = {f"t{index}": None if mark == "-" else float(mark) for index, mark in enumerate(verdicts)}
        shown = dict(zip(solved, map(float, grounded or "0" * len(verdicts)), strict=True))
        group_of = dict.fromkeys(solved, "G1_instruction")
        known = [value for value in solved.values() if value is not None]
        rates = {"finish_rate": finish_rate, "grounded": sum(shown.values()) / len(shown)}
        rates |= {"pass_rate": sum(known) / len(known)} if known else {}
        return Evaluation(
            name=name,
            policy=Revision(name=name, revision="abc"),
            conditions=conditions(temperature=0.0, max_calls=max_calls),
            annotator=Revision(name="rules", revision="1"),
            attempts=1,
            split="test",
            tasks_hash="t1",
            confidence=0.95,
            broken=0.0,
            solved=solved,
            grounded=shown,
            group_of=group_of,
            measures={name: Measure(describes=each.describes, is_rate=each.is_rate) for name, each in METRICS.items()},
            metrics={key: {name: Estimate(value=rates.get(name)) for name in METRICS} for key in group_tasks(group_of)},
        )

    return build


def nothing_solved(like: Evaluation) -> Evaluation:
    """An evaluation under the same conditions as `like` of an arm `sft` that solves nothing."""
    metrics = {group: row | {"pass_rate": Estimate(value=0.0)} for group, row in like.metrics.items()}
    changes = {"name": "sft", "solved": dict.fromkeys(like.solved, 0.0), "metrics": metrics}
    return like.model_copy(update={**changes, "policy": Revision(name="sft", revision="abc")})


@pytest.fixture
def register_as(tracking: Tracking, tmp_path: Path) -> Iterator[Callable[[str, Evaluation], int]]:
    """Register a stand-in for a model, told apart by `weights`; returns the version."""

    with tracking.stage("register") as run:

        def registered(weights: str, evaluation: Evaluation, baseline: Evaluation | None = None) -> int:
            """The baseline solves nothing, unless `baseline` says otherwise."""
            folder = tmp_path / f"model-{weights}"
            folder.mkdir(exist_ok=True)
            for file in ("config.json", "tokenizer.json", "model.safetensors"):
                (folder / file).write_text(weights)
            lineage = {"arm": evaluation.name, "data": "d1", "seed": "17"}
            baseline = baseline or nothing_solved(evaluation)
            return register(tracking, run, "agent", folder, evaluation, lineage, baseline=baseline).version

        yield registered


@pytest.fixture
def serve(tmp_path: Path, empty_database: Path) -> Iterator[Callable[[], tuple[str, Callable[[], None]]]]:
    """Start a real `mlflow server` on loopback, always at the same address; gives its URI and what kills it."""
    shutil.copy(empty_database, tmp_path / "served.db")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", port]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/served.db"]
    command += ["--artifacts-destination", str(tmp_path / "served")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    started: list[subprocess.Popen[bytes]] = []

    def kill() -> None:
        for server in started:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)  # its workers too
                server.wait()

    def start() -> tuple[str, Callable[[], None]]:
        quiet = subprocess.DEVNULL
        started.append(
            subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True, stdout=quiet, stderr=quiet)
        )
        for _ in range(480):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(port))) == 0:
                    return f"http://127.0.0.1:{port}", kill
            time.sleep(0.25)
        raise AssertionError("the server did not start")

    yield start
    kill()

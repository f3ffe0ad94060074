"""`make serve`: everything answers, and a signal leaves no process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from flows.serve import serve
from flows.servers import any_free_port
from steptool.errors import InputError
from tests.registry.conftest import empty_database  # noqa: F401  a fixture

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    (tmp_path / "params.yaml").write_text("seed: 17\n")
    (tmp_path / "infra").symlink_to(ROOT / "infra")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_port_that_is_taken_is_named_before_anything_starts(checkout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        with pytest.raises(InputError, match=f"port {taken} is taken(?s:.*)make serve PREFECT_PORT=") as caught:
            serve(taken, any_free_port())
    assert caught.value.exit_code == 2
    assert not (checkout / ".steptool" / "serve").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_everything_answers_and_a_signal_leaves_no_process(checkout: Path, number: signal.Signals) -> None:
    ports = any_free_port(), any_free_port()
    command = [sys.executable, "-m", "steptool.cli", "serve", "--port", str(ports[0]), "--mlflow-port", str(ports[1])]
    child = subprocess.Popen(
        command, cwd=checkout, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(child.stdout or ()))
    reader.start()
    deadline = time.monotonic() + 400
    while not any("Ctrl-C" in line for line in said):
        assert child.poll() is None and time.monotonic() < deadline, said
        time.sleep(0.5)
    with urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/api/health", timeout=10) as answer:
        assert answer.read() == b"true"
    with urllib.request.urlopen(f"http://127.0.0.1:{ports[1]}/health", timeout=10) as answer:
        assert answer.read() == b"OK"
    family = psutil.Process(child.pid).children(recursive=True)
    assert len(family) >= 6, "server, MLflow and worker, each below its supervisor"
    child.send_signal(number)
    code = child.wait(60)
    reader.join(30)
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)

"""`make serve` of a checkout of its own, as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from steptool.orchestration.services.servers import any_free_port

ROOT = Path(__file__).parents[2]
FOREIGN = ("PREFECT_", "MLFLOW_", "AWS_")
"""Settings of servers; a checkout of its own does not inherit them."""


def lay_out(root: Path, database: Path) -> Path:
    """A checkout: what `serve` looks at, with an empty tracking database."""
    (root / "mlflow.db").write_bytes(database.read_bytes())
    (root / "params.yaml").write_text("seed: 17\n")
    (root / "infra").symlink_to(ROOT / "infra")
    return root


@dataclass
class Serving:
    """`make serve` that has greeted."""

    root: Path
    process: subprocess.Popen[str]
    prefect_port: int
    mlflow_port: int
    said: list[str]

    def environment(self) -> dict[str, str]:
        """That of a terminal in which the file that it names was sourced."""
        script = f"source {self.root}/.steptool/serve/environment; env -0"
        said = subprocess.run(["bash", "-c", script], env=clean_environment(), stdout=subprocess.PIPE, check=True)
        return dict(entry.split("=", 1) for entry in said.stdout.decode().split("\0") if entry)

    def type(self, *command: str) -> str:
        """Run a Python module in that terminal; what it says."""
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stop(self, number: signal.Signals) -> int:
        """The exit status. Nothing of it is left."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        assert len(family) >= 6, "server, MLflow and worker, each below its supervisor"
        self.process.send_signal(number)
        code = self.process.wait(90)
        _, alive = psutil.wait_procs(family, timeout=30)
        assert alive == []
        return code


def clean_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return kept | {"PYTHONPATH": str(ROOT), "DO_NOT_TRACK": "1"}


@contextmanager
def serving(root: Path, **environment: str) -> Iterator[Serving]:
    prefect, mlflow = any_free_port(), any_free_port()
    command = [sys.executable, "-m", "steptool.cli", "serve", "--port", str(prefect), "--mlflow-port", str(mlflow)]
    child = subprocess.Popen(
        command, cwd=root, env=clean_environment() | environment, stdout=subprocess.PIPE, text=True
    )
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(child.stdout or ()))
    reader.start()
    try:
        deadline = time.monotonic() + 400
        while not any("Ctrl-C" in line for line in said):
            assert child.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.5)
        yield Serving(root, child, prefect, mlflow, said)
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait(90)
        reader.join(30)

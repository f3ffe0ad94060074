"""What MLflow, DVC, and Prefect over it, cost a stage, against the bare commands.

    python -m benchmarks.overhead [stages]        10 by default

All in one run on one machine, over a chain of stages that do nothing: two lengths each, so that the difference tells
a stage's cost from what is paid once. The Prefect server and MLflow's database are there before the clock starts.

MLflow's cost is that of a stage's process with its own imports and nothing else to do, over the same untracked:
`annotate`, which imports little, and `train`, which imports PyTorch, and with it some of what MLflow needs. Tracked, as
`steptool run` and the flow do it, it writes down what they send; alone, under a bare `dvc repro`, it sends it itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from prefect.testing.utilities import prefect_test_harness
from ruamel.yaml import YAML

from benchmarks import run as run_command
from flows.pipeline import pipeline
from steptool.orchestration.graph.repro import stage_environment
from steptool.tracking.relay import Relay
from steptool.tracking.run import Tracking

Arm = Callable[[Path, int], None]
"""Runs so many stages in a workspace."""
SHORT = 2
ROOT = str(Path(__file__).parents[1])
TRACKED = """
from steptool.tracking.run import Tracking
with Tracking(None, "overhead").stage("nothing", params={"a": 1}) as run:
    run.metrics(1, {"loss": 0.5})
    run.summary({"pass_rate": 0.5})
"""
STAGES = ("annotate", "train")


def make_workspace(root: Path, count: int) -> Path:
    """A chain of `count` stages, nothing done yet."""
    folder = root / f"chain-{count}-{time.monotonic_ns()}"
    folder.mkdir()
    stages = {
        f"s{i}": {"cmd": _command(i), "outs": [f"{i}.txt"], **({"deps": [f"{i - 1}.txt"]} if i else {})}
        for i in range(count)
    }
    with (folder / "dvc.yaml").open("w") as file:
        YAML().dump({"stages": stages}, file)
    (folder / "params.yaml").write_text("seed: 17\n")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True)
    return folder


def _command(i: int) -> str:
    return f"echo {i} > {i}.txt"


def bare(folder: Path, count: int) -> None:
    for i in range(count):
        subprocess.run(["sh", "-c", _command(i)], cwd=folder, check=True)


def process(script: str) -> Arm:
    """A stage's process that tracks itself, if it tracks anything."""

    def run(folder: Path, count: int) -> None:
        _run_each(script, folder, count, dict(os.environ))

    return run


def relayed(script: str) -> Arm:
    def run(folder: Path, count: int) -> None:
        tracking = Tracking(None, "overhead", root=folder)
        with Relay(folder):
            _run_each(script, folder, count, stage_environment(tracking.new_pipeline(), folder))

    return run


def _run_each(script: str, folder: Path, count: int, environment: dict[str, str]) -> None:
    for _ in range(count):
        command = [sys.executable, "-c", script]
        subprocess.run(command, cwd=folder, env=environment | {"PYTHONPATH": ROOT}, check=True)


def dvc(folder: Path, count: int) -> None:
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=folder, check=True)


def flow(folder: Path, count: int) -> None:
    before = Path.cwd()
    os.chdir(folder)
    try:
        state = pipeline(return_state=True)
    finally:
        os.chdir(before)
    if not state.is_completed():
        raise RuntimeError(f"the flow ended as {state.name}: {state.message}")


def arms() -> dict[str, tuple[Arm, str]]:
    """What is measured by its name, and over what."""
    found: dict[str, tuple[Arm, str]] = {"bare": (bare, "bare")}
    for name in STAGES:
        script = f"import steptool.stages.{name}"
        found |= {
            name: (process(script), name),
            f"{name}, tracked": (relayed(script + TRACKED), name),
            f"{name}, alone": (process(script + TRACKED), name),
        }
    return found | {"dvc repro": (dvc, "bare"), "flow": (flow, "bare")}


def measure(run: Arm, root: Path, count: int) -> tuple[float, float]:
    """Seconds a stage, and seconds paid once."""
    took = {}
    for length in (SHORT, count):
        folder = make_workspace(root, length)
        started = time.monotonic()
        run(folder, length)
        took[length] = time.monotonic() - started
    stage_s = (took[count] - took[SHORT]) / (count - SHORT)
    return stage_s, took[SHORT] - SHORT * stage_s


def main(count: Annotated[int, typer.Argument(help="Stages in the chain.", min=1)] = 10) -> None:
    """Time what a stage costs beside its own work."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder, prefect_test_harness(server_startup_timeout=300):
        root = Path(folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{root}/mlflow.db"
        flow(make_workspace(root, 1), 1)  # what is made once: MLflow's database, compiled modules
        rows = {name: (*measure(run, root, count), over) for name, (run, over) in arms().items()}
    quiet = "" if load < 0.5 else " not"
    print(f"{count} stages in a chain; load a core {load:.1f} before it began, so the numbers are{quiet} quiet")
    for name, (stage_s, once_s, over) in rows.items():
        print(f"{name:17} {stage_s:6.2f} s a stage, {once_s:6.2f} s once, {stage_s - rows[over][0]:6.2f} s over {over}")


if __name__ == "__main__":
    run_command(main)

"""From a log of an agent to a model that was trained, evaluated and is served, by three commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.project import ROOT
from tests.test_extension import Project

EXAMPLE = ROOT / "examples" / "traces"
AUTHOR = {f"GIT_{who}_{what}": f"t@{who}.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def started(tmp_path: Path, *options: str) -> Project:
    """The project of `steptool init shop --traces …`."""
    made = Project(tmp_path)
    made.environment |= AUTHOR
    made.run("steptool.cli", "init", "shop", "--traces", *options)
    made.root = tmp_path / "shop"
    return made


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running(project: Project, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-m", *command], cwd=project.root, env=project.environment)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(timeout=60)


def answers(url: str, seconds: float) -> None:
    """Wait until something answers there."""
    ends = time.monotonic() + seconds
    while True:
        try:
            httpx.get(url).raise_for_status()
            return
        except httpx.HTTPError:
            assert time.monotonic() < ends, f"{url} does not answer"
            time.sleep(1)


def test_the_files_of_the_example_are_what_its_script_writes(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "bookshop", tmp_path / "bookshop")
    shutil.copytree(EXAMPLE, tmp_path / "traces")
    for name in ("log.jsonl.gz", "tasks.jsonl"):
        (tmp_path / "traces" / name).unlink()
    subprocess.run([sys.executable, "write_log.py"], cwd=tmp_path / "traces", check=True)
    for name in ("log.jsonl.gz", "tasks.jsonl"):
        assert (tmp_path / "traces" / name).read_bytes() == (EXAMPLE / name).read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_commands_make_a_served_model_of_a_log(tmp_path: Path) -> None:
    """On the toy model: that the parts fit together."""
    project = started(tmp_path, str(EXAMPLE / "log.jsonl.gz"))
    project.run("steptool.cli", "params", "--profile", "tiny")
    assert "ppo is registered as shop version 1" in project.run("steptool.cli", "run")
    assert (project.root / "reports" / "index.html").exists()
    port = free_port()
    with running(project, "steptool.cli", "serve-model", "--policy", "ppo", "--port", str(port)):
        answers(f"http://127.0.0.1:{port}/v1/models", seconds=300)
        tools = json.loads((project.root / "traces" / "log" / "tools.json").read_text())
        offered = [{"type": "function", "function": {key: tool[key] for key in ("name", "description", "parameters")}}
                   for tool in tools]  # fmt: skip
        model = httpx.get(f"http://127.0.0.1:{port}/v1/models").json()["data"][0]["id"]
        asked = {"model": model, "messages": [{"role": "user", "content": "What does Walden cost?"}], "tools": offered}
        reply = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=asked, timeout=120)
        assert reply.status_code == 200, reply.text


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_tracking_server_is_a_log(tmp_path: Path) -> None:
    """The same conversations, sent to an MLflow server and imported from it, are the same attempts."""
    port = free_port()
    uri, server = f"http://127.0.0.1:{port}", Project(tmp_path)
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--workers", "1", "--port", str(port)]
    with running(server, "mlflow", "server", *store, "--host", "127.0.0.1"):
        answers(f"{uri}/health", seconds=120)
        environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
        subprocess.run([sys.executable, EXAMPLE / "write_log.py", "--mlflow", uri], env=environment, check=True)
        imported = Project(tmp_path)
        imported.run("steptool.cli", "traces", "import", uri, "--set", "experiment=bookshop", "--name", "served")
    imported.run("steptool.cli", "traces", "import", str(EXAMPLE / "log.jsonl.gz"), "--name", "file")
    served, file = (
        (tmp_path / "traces" / name / "tasks.jsonl").read_text().splitlines() for name in ("served", "file")
    )
    assert sorted(served) == sorted(file)
    said = imported.run("steptool.cli", "traces", "import", str(EXAMPLE / "log.jsonl.gz"), "--name", "served", "--add")
    assert "216 attempts at 216 tasks" in said, "nothing is there twice"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("checks", [True, False])
def test_the_example_makes_a_model_that_is_better_than_its_base_on_held_out_questions(
    tmp_path: Path, checks: bool
) -> None:
    """The whole pipeline with SmolLM2 from the log alone, as the README of the example says."""
    tasks = ("--tasks", str(EXAMPLE / "tasks.jsonl")) if checks else ()
    project = started(tmp_path, str(EXAMPLE / "log.jsonl.gz"), *tasks)
    print(project.run("steptool.cli", "run"))
    compared = json.loads((project.root / "metrics/evaluation/comparisons.json").read_text())
    (found,) = [each for each in compared if (each["candidate"], each["baseline"]) == ("sft", "start")]
    assert (found["measure"], found["low"] > 0) == ("solved" if checks else "grounded", True), found

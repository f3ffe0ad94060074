"""examples/openapi and examples/mcp: what is generated is up to date, and the commands of a project run on them, first
with the service, then from recordings without it.

service up      prepare makes the calls of the demonstrations → recordings.db
service down    prepare, sample: the same files, byte by byte
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from steptool.core.storage import read_lines
from steptool.worlds.openapi.document import Document
from steptool.worlds.openapi.operations import operations_of
from tests.project import ROOT
from tests.test_extension import Project
from tests.worlds.openapi_service import free_port

DEMONSTRATIONS = 6
"""How many of an example's are called in a test."""
ARMS = {
    "rounds": {"r1": {"from": "base"}},
    "arms": {"ppo": {"method": "step_ppo", "from": "base", "data": ["r1"]}},
    "compare": [],
}


@contextmanager
def desk(folder: Path) -> Iterator[str]:
    """The service of examples/openapi, while it runs."""
    port = free_port()
    service = subprocess.Popen([sys.executable, "service.py", str(port)], cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                httpx.get(url)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url
    finally:
        service.kill()
        service.wait()


def project(name: str, folder: Path) -> Project:
    """A copy of an example, on the tiny profile, with a round of data from the toy model."""
    shutil.copytree(ROOT / "examples" / name, folder, dirs_exist_ok=True)
    shutil.copytree(ROOT / "steptool" / "project" / "template" / "profiles", folder / "profiles")
    made = Project(folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    made.run("dvc", "init", "-q")
    made.run("steptool.cli", "params", "--profile", "tiny")
    lines = (folder / "demonstrations.jsonl").read_text().splitlines(keepends=True)
    (folder / "demonstrations.jsonl").write_text("".join(lines[:DEMONSTRATIONS]))
    made.set(ARMS)
    made.run("steptool.cli", "graph")
    return made


def lines_of(file: Path) -> list[str]:
    return list(read_lines(file, missing="", broken=""))


def check(made: Project) -> None:
    """Everything again, once nothing replies any more."""
    tasks, attempts = made.root / "data" / "tasks", made.root / "data" / "trajectories" / "r1" / "trajectories.jsonl.gz"
    before = {file.name: lines_of(file) for file in tasks.glob("*.jsonl")}
    shown = [json.loads(line) for line in before["demonstrations.jsonl"][1:]]
    assert [each["outcome"]["solved"] for each in shown] == [1.0] * DEMONSTRATIONS
    shutil.rmtree(made.root / "data")
    made.run("dvc", "repro", "--force", "sample-r1")
    assert {file.name: lines_of(file) for file in tasks.glob("*.jsonl")} == before
    made_again = [json.loads(line) for line in lines_of(attempts)[1:]]
    assert len(made_again) == 8  # four tasks, two attempts at each
    assert "world_error" not in {each["stop_reason"] for each in made_again}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_openapi_example_runs_again_while_its_service_is_down(tmp_path: Path) -> None:
    made = project("openapi", tmp_path / "openapi")
    with desk(made.root) as url:
        made.set({"world": {"use": "openapi", "document": "openapi.json", "base_url": url, "allow": ["book"]}})
        made.run("dvc", "repro", "sample-r1")
        assert made.run("steptool.cli", "tools", "list").startswith("find_station(name: string)\n")
        found = made.run("steptool.cli", "tools", "try", "find_station", '{"name": "Ashford"}')
        assert found == '{"code":"ASH"}\n'
        assert made.run("steptool.cli", "tools", "check").endswith("differences: none\n")
    check(made)
    assert made.run("steptool.cli", "tools", "try", "find_station", '{"name": "Ashford"}') == found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_mcp_example_runs_again_where_its_server_cannot_start(tmp_path: Path) -> None:
    made = project("mcp", tmp_path / "mcp")
    made.run("dvc", "repro", "sample-r1")
    broken = tmp_path / "bin" / "python"  # what the example's command names
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 9\n")
    broken.chmod(0o755)
    made.environment["PATH"] = f"{broken.parent}{os.pathsep}{made.environment['PATH']}"
    check(made)


@pytest.mark.parametrize("name", ["openapi", "mcp"])
def test_tasks_and_demonstrations_are_what_the_script_makes(name: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / name, tmp_path, dirs_exist_ok=True)
    kept = {file: (tmp_path / file).read_bytes() for file in ("tasks.jsonl", "demonstrations.jsonl")}
    subprocess.run([sys.executable, "make_tasks.py"], cwd=tmp_path, check=True)
    assert {file: (tmp_path / file).read_bytes() for file in kept} == kept
    assert len(kept["tasks.jsonl"].splitlines()) >= 60


def test_the_document_is_what_the_service_says(tmp_path: Path) -> None:
    """By the tools that come of it: another version of FastAPI may word a document otherwise."""
    shutil.copytree(ROOT / "examples" / "openapi", tmp_path, dirs_exist_ok=True)
    said = subprocess.run([sys.executable, "service.py", "--document"], cwd=tmp_path, capture_output=True, check=True)
    tools = [
        [
            each.tool
            for each in operations_of(
                Document(text, "openapi.json"), base_url=None, allow=["book"], leave_out=[]
            ).values()
        ]
        for text in (said.stdout.decode(), (tmp_path / "openapi.json").read_text())
    ]
    assert tools[0] == tools[1]
    assert [tool.name for tool in tools[0]] == [
        "find_station", "trains_from", "get_train", "get_price", "get_booking", "book",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["openapi", "mcp"])
def test_its_readme_is_one_screen(name: str) -> None:
    assert len((ROOT / "examples" / name / "README.md").read_text().splitlines()) <= 40

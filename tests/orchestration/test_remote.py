"""A stage in another clone: own directory, home and environment; nothing shared but Git, Prefect and the DVC remote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness

from flows.pipeline import pipeline
from steptool.config.lineage import write_graph
from steptool.core.storage import read_jsonl
from steptool.core.types import Task
from tests.orchestration.conftest import Workspace, commit_all, dvc, sh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
STAGES: dict[str, object] = {
    "a": {"cmd": "echo 1 > a.txt", "outs": ["a.txt"]},
    "b": {
        "cmd": "cat a.txt > b.txt; echo $HOME > home.txt",
        "deps": ["a.txt"],
        "outs": ["b.txt", "home.txt"],
        "meta": {"resources": "gpu"},
    },
    "c": {"cmd": "cat b.txt > c.txt", "deps": ["b.txt"], "outs": ["c.txt"]},
    **{
        f"round{number}": {"cmd": f"echo {number} > rounds/{number}.txt", "outs": [f"rounds/{number}.txt"]}
        for number in (1, 2)
    },
    "all": {"cmd": "cat rounds/*.txt > all.txt", "deps": ["rounds"], "outs": ["all.txt"], "meta": {"resources": "gpu"}},
}


PARAMS = """
world: {use: "shop:Shop", train_tasks: 4, dev_tasks: 2, test_tasks: 2}
demonstrations: {count: 2}
arms: {sft: {method: sft, from: base, data: [demonstrations]}}
"""
SHOP = """
from steptool.worlds.mini.world import MiniWorld

class Shop(MiniWorld):
    name = "shop"
"""


Node = Callable[[Path], AbstractContextManager[Path]]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node for a workspace, whose worker serves `stage/gpu`: its home. Its clone is beside that."""
    return lambda root: _node(root, tmp_path)


@contextmanager
def _node(root: Path, folder: Path) -> Iterator[Path]:
    home, clone = folder / "home", folder / "clone"
    home.mkdir()
    dvc(root, "remote", "add", "-d", "shared", str(folder / "remote"))
    commit_all(root)
    sh(folder, "git", "clone", "-q", str(root), str(clone))
    with prefect_test_harness(server_startup_timeout=300):
        with get_client(sync_client=True) as client:
            client.create_global_concurrency_limit(_limit())
        script = "from flows.node import remote_stage; remote_stage.serve(name='gpu')"
        own = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(home),
            "STEPTOOL_CLONE": str(clone),
            "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        }
        worker = subprocess.Popen([sys.executable, "-c", script], cwd=home, env=own, start_new_session=True)
        try:
            _wait_for_deployment()
            yield home
        finally:
            worker.terminate()
            worker.wait(30)


def _limit() -> object:
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

    return GlobalConcurrencyLimitCreate(name="gpu", limit=1)


def _wait_for_deployment() -> None:
    deadline = time.monotonic() + 240
    with get_client(sync_client=True) as client:
        while not any(d.name == "gpu" for d in client.read_deployments()):
            assert time.monotonic() < deadline, "the worker did not register"
            time.sleep(0.5)


def test_result_of_another_clone_is_as_if_made_here(
    workspace: Workspace, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = workspace(STAGES)
    (root / "params.yaml").write_text("seed: 17\n")
    (root / ".gitignore").write_text("/rounds/\n/*.txt\n")  # else DVC puts one into the folder that is read
    with node(root) as home:
        monkeypatch.chdir(root)
        (root / "params.yaml").write_text("seed: 18\n")  # what only this run has; the node gets its text
        (root / "rounds").mkdir()
        stale = root.parent / "clone" / "rounds" / "3.txt"  # from a run of the node that had a third round
        stale.parent.mkdir()
        stale.write_text("3\n")
        assert pipeline(gpu="stage/gpu", return_state=True).is_completed()
    assert (root / "all.txt").read_text() == "1\n2\n", "a folder is read whole, and holds what was made here"
    assert (root / "c.txt").read_text() == "1\n"
    assert (root / "home.txt").read_text() == f"{home}\n", "stage b ran on the node"
    assert "up to date" in dvc(root, "status")
    assert "didn't change" in dvc(root, "repro")


def test_node_runs_a_stage_of_the_graph_with_a_plugin_of_the_project(
    workspace: Workspace, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its revision travels through the DVC remote, its world through Git; the node's own Python knows neither."""
    root = workspace({"prepare": {"cmd": "written anew", "meta": {"resources": "gpu"}}})
    (root / "params.yaml").write_text(PARAMS)
    (root / "shop.py").write_text(SHOP)
    monkeypatch.chdir(root)
    write_graph()
    with node(root):
        (root / "params.yaml").write_text(PARAMS.replace("train_tasks: 4", "train_tasks: 5"))
        state = pipeline(["prepare"], gpu="stage/gpu", return_state=True)
        assert state.is_completed(), state.message
    clone = root.parent / "clone"
    for folder in (root, clone):
        assert len(read_jsonl(folder / "data/tasks/train.jsonl", Task)) == 5
        assert json.loads((folder / "data/revisions/prepare.json").read_text())["code"]
    assert not (clone / "data/revisions/base.json").exists(), "a node gets what its stage reads"
    assert "didn't change" in dvc(root, "repro", "--single-item", "prepare")

"""What a stage survives, and what it is told at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prefect.logging import disable_run_logger

import steptool.orchestration.graph.task
from steptool.core.errors import StepToolError
from steptool.orchestration.graph.repro import stage_environment
from steptool.orchestration.graph.stages import read_graph
from steptool.orchestration.graph.task import _Progress
from steptool.orchestration.graph.workspace import Workspace
from steptool.orchestration.machines.remote import _committed, _only_inputs
from steptool.orchestration.machines.transfer import transfer
from tests.orchestration.conftest import commit_all, sh

Make = Callable[[dict[str, object]], Path]


def test_progress_that_cannot_be_shown_ends_no_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def away(*_: object, **__: object) -> None:
        tried.append(1)
        raise httpx.ConnectError("connection refused")

    monkeypatch.setattr(steptool.orchestration.graph.task, "create_progress_artifact", away)
    progress = _Progress("train-progress")
    with disable_run_logger():
        progress.follow("train: 12/96 rows, 0.5/s, 160 s left")
        progress.finish()
    assert tried == [1]


def test_transfer_without_a_remote_says_so_at_once(workspace: Make) -> None:
    here = Workspace(workspace({"a": {"cmd": "true", "outs": ["a.txt"]}}), "", {})
    with pytest.raises(StepToolError, match="no DVC remote is configured"):
        transfer(here, "push", "a")


def test_stage_runs_the_code_of_its_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert stage_environment("run", tmp_path)["PYTHONPATH"] == f"{tmp_path}:/elsewhere"
    monkeypatch.delenv("PYTHONPATH")
    assert stage_environment("run", tmp_path)["PYTHONPATH"] == str(tmp_path)


@pytest.fixture
def rounds(workspace: Make) -> Path:
    """A stage that reads the folder of the rounds whole, and code."""
    root = workspace(
        {
            "r1": {"cmd": "true", "outs": ["rounds/r1"]},
            "all": {"cmd": "true", "deps": ["rounds", "code"], "outs": ["all.txt"], "meta": {"resources": "gpu"}},
        }
    )
    (root / ".gitignore").write_text("/rounds/\n/*.txt\n")
    (root / "code").mkdir()
    (root / "code" / "a.py").touch()
    (root / "rounds" / "r1").mkdir(parents=True)
    commit_all(root)
    return root


def test_folder_with_more_in_it_than_a_node_would_have_is_refused(rounds: Path) -> None:
    here, node = Workspace(rounds, "", {"PATH": "/usr/bin:/bin"}), read_graph(rounds, ["all"])[-1]
    (rounds / "rounds" / ".r2.tmp").mkdir()  # left by a stage that was killed; DVC does not see it
    with disable_run_logger():
        _only_inputs(here, node)
        (rounds / "rounds" / "r3").mkdir()
        (rounds / "rounds" / "r3" / "model").touch()
        with pytest.raises(StepToolError, match="rounds/r3"):
            _only_inputs(here, node)


def test_code_that_git_does_not_know_is_not_sent(rounds: Path) -> None:
    here, node = Workspace(rounds, "", {}), read_graph(rounds, ["all"])[-1]
    (rounds / "notes.md").touch()  # nothing that the stage reads
    assert _committed(here, node) == sh(rounds, "git", "rev-parse", "HEAD").strip()
    (rounds / "code" / "new.py").touch()
    with pytest.raises(StepToolError, match=r"not committed: code/new\.py"):
        _committed(here, node)

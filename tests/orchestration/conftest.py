"""A workspace with a small DVC graph of its own, in a Git repository."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

os.environ |= {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
Workspace = Callable[[dict[str, object]], Path]


def sh(root: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def commit_all(root: Path) -> None:
    sh(root, "git", "add", "-A")
    sh(root, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "all")


def dvc(root: Path, *arguments: str) -> str:
    return sh(root, sys.executable, "-m", "dvc", *arguments)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Make one from the `stages` of a dvc.yaml."""

    def make(stages: dict[str, object]) -> Path:
        root = tmp_path / "workspace"
        root.mkdir()
        sh(root, "git", "init", "-q")
        dvc(root, "init", "-q")
        dvc(root, "config", "core.analytics", "false")
        with (root / "dvc.yaml").open("w") as file:
            YAML().dump({"stages": stages}, file)
        return root

    return make

"""A copy of the project as it lies here, changes that are not committed included, for a test to run."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENTRIES = (
    "steptool",
    "profiles",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
    "dvc.yaml",
    "params.yaml",
)


def copy_project(folder: Path) -> None:
    """What `steptool run` needs, into `folder`; neither tests nor anything that a run has made."""
    for entry in ENTRIES:
        source, target = ROOT / entry, folder / entry
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)

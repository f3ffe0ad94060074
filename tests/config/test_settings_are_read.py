"""No setting is dead: code other than its own class reads it.

The package is copied without the fields of its settings, and mypy says where each is missed. So a field counts as read
only where a value of its own class is asked for it, not wherever an attribute happens to have its name.
"""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import ROOT

SECTIONS = "steptool/config/settings.py"


def fields(tree: ast.Module) -> Iterator[tuple[str, ast.AnnAssign]]:
    """(class, field) of the settings that a module defines: sections of params.yaml, and the `Config` of plugins."""
    for owner in ast.walk(tree):
        if isinstance(owner, ast.ClassDef) and any(ast.unparse(base).endswith("Settings") for base in owner.bases):
            yield from ((owner.name, item) for item in owner.body if isinstance(item, ast.AnnAssign))


def without_fields(source: str) -> tuple[str, set[tuple[str, str]]]:
    """`source` with the lines of its settings' fields blank, and these fields."""
    lines, found = source.splitlines(), set()
    for owner, item in fields(ast.parse(source)):
        if owner == "Params":  # whose fields are the sections
            continue
        found.add((owner, ast.unparse(item.target)))
        for number in range(item.lineno - 1, item.end_lineno or item.lineno):
            lines[number] = f"{' ' * item.col_offset}pass" if number == item.lineno - 1 else ""
    return "\n".join(lines) + "\n", found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_setting_is_read_by_other_code_than_its_class(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "steptool", tmp_path / "steptool", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "flows", tmp_path / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    wanted: set[tuple[str, str]] = set()
    for file in (tmp_path / "steptool").rglob("*.py"):
        text, found = without_fields(file.read_text())
        if found:
            file.write_text(text)
            wanted |= found
    assert len(wanted) > 50
    command = [sys.executable, "-m", "mypy", "--soft-error-limit", "-1", "--output", "json", "steptool", "flows"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500).stdout
    read = set()
    for line in said.splitlines():
        problem = json.loads(line)
        if problem["code"] == "attr-defined" and not problem["file"].endswith(SECTIONS):
            parts = problem["message"].split('"')
            read.add((parts[1], parts[3]))
    # A base class of a `Config` is read as that, and a `Config` that changes a default as the class that it changes.
    related = ("Config", "ProjectSettings", "EndpointSettings")
    assert {
        (owner, name) for owner, name in wanted - read if not any((each, name) in read for each in related)
    } == set()

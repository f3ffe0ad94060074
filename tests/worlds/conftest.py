"""Worlds of functions, each in a project of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from steptool.core.revision import forget_sources
from steptool.worlds.functions import FunctionsWorld

ASK: list[dict[str, Any]] = [
    {"query": f"Question {number}?", "check": {"kind": "text", "expected": "a"}} for number in range(10)
]
Make = Callable[..., FunctionsWorld]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A world in a project of its own. Python keeps modules by name, so that of the last one is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    made: list[FunctionsWorld] = []

    def world(code: str, tasks: list[dict[str, Any]] = ASK, seed: int = 17, **config: Any) -> FunctionsWorld:
        for name in ("tools", "checks"):
            sys.modules.pop(name, None)
        forget_sources()
        Path("tools.py").write_text(code)
        Path("tasks.jsonl").write_text("".join(f"{json.dumps(task)}\n" for task in tasks))
        made.append(FunctionsWorld(FunctionsWorld.Config(**config), seed))
        return made[-1]

    yield world
    for each in made:
        each.end()
    for name in ("tools", "checks"):
        sys.modules.pop(name, None)
    forget_sources()

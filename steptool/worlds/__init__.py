"""Worlds: where tools live. `open_world` builds the one that params.yaml names."""

from __future__ import annotations

from pathlib import Path

from steptool.params import WorldParams
from steptool.worlds.base import Session, World
from steptool.worlds.mini import MiniWorld
from steptool.worlds.recorded import RecordedWorld

__all__ = ["MiniWorld", "RecordedWorld", "Session", "World", "open_world"]


def open_world(params: WorldParams, seed: int) -> MiniWorld | RecordedWorld:
    if params.name == "recorded":
        return RecordedWorld(Path(params.path) if params.path else None)
    return MiniWorld(seed, params.train_tasks, params.dev_tasks, params.test_tasks)

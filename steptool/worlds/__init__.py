"""Worlds: where tools live. `open_world` builds the one that params.yaml names."""

from __future__ import annotations

from pathlib import Path

from steptool.config.settings import WorldParams
from steptool.worlds.base import Session, World
from steptool.worlds.mini import MiniWorld

__all__ = ["MiniWorld", "Session", "World", "open_world", "world_content"]


def open_world(params: WorldParams, seed: int) -> World:
    """Raises DataError where a recorded world's folder is not given or lacks a file."""
    if params.name == "recorded":
        from steptool.worlds.recorded import RecordedWorld

        return RecordedWorld(
            Path(params.path) if params.path else None,
            train_tasks=params.train_tasks,
            dev_tasks=params.dev_tasks,
            test_tasks=params.test_tasks,
        )
    return MiniWorld(seed, params.train_tasks, params.dev_tasks, params.test_tasks)


def world_content(params: WorldParams) -> str:
    """What the files that the world reads from outside of the repository consist of now, in one short text.

    Raises DataError where they cannot be found.
    """
    if params.name == "recorded":
        from steptool.worlds.recorded import recordings_content

        return recordings_content(Path(params.path) if params.path else None)
    return params.name

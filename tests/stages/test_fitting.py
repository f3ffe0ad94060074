"""Checkpoints live as long as their training may have to go on, and no longer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from steptool.config.places import WORK
from steptool.stages.common import Stage
from steptool.stages.fitting import Fitting


def test_finished_training_removes_its_checkpoints_and_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fitting = Fitting(Stage(tmp_path / "out", cast(Any, None), {"seed": 1}), "train-r1")
    earlier = Fitting(Stage(tmp_path / "out", cast(Any, None), {"seed": 2}), "train-r1")
    other = Fitting(Stage(tmp_path / "out", cast(Any, None), {"seed": 1}), "train-r10")
    for each in (fitting, earlier, other):
        each.checkpoint_dir.mkdir(parents=True)
        (each.checkpoint_dir / "checkpoint.safetensors").write_bytes(b"state")
    fitting.forget()
    assert list((tmp_path / WORK / "checkpoints").iterdir()) == [tmp_path / other.checkpoint_dir]


def test_training_that_left_no_checkpoint_has_nothing_to_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Fitting(Stage(tmp_path / "out", cast(Any, None), {}), "rft").forget()
    assert not (tmp_path / WORK).exists()

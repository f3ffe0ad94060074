"""The first step of a deployment: the worker's checkout, with its own flows."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

import pytest

from steptool.core.errors import InputError
from steptool.orchestration.machines.checkout import enter


def test_the_flows_of_the_checkout_are_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path.cwd())
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_flows").mkdir()
    (tmp_path / "my_flows" / "mine.py").write_text("NAME = 'mine'\n")
    assert enter(str(tmp_path)) == {"directory": str(tmp_path)}
    assert Path.cwd() == tmp_path
    assert import_module("my_flows.mine").NAME == "mine"


@pytest.mark.parametrize("directory", ["", "{{ $STEPTOOL_CLONE }}", "relative", "/nowhere"])
def test_a_worker_without_a_checkout_is_told_what_to_type(directory: str) -> None:
    before = os.getcwd()
    with pytest.raises(InputError, match="STEPTOOL_CLONE names no folder") as error:
        enter(directory)
    assert "STEPTOOL_CLONE=/path/to/checkout prefect worker start" in str(error.value)
    assert os.getcwd() == before

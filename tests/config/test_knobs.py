"""No setting is dead: code outside params.py reads every field, and names no field that does not exist.

That the values also change what comes out is shown where the value is used (tests/training/test_ppo.py,
tests/rewards/test_shaping.py, tests/validation/test_gate.py, …).
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from steptool.config.settings import Params, RoundParams

ROOT = Path(__file__).parents[2]
SECTIONS = {
    field.alias or name: field.annotation
    for name, field in Params.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}
KNOBS = [(section, name) for section, model in SECTIONS.items() for name in model.model_fields] + [
    ("rounds", name) for name in RoundParams.model_fields
]
READ = {
    node.attr
    for file in (ROOT / "steptool").rglob("*.py")
    if file.name != "params.py"
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    if isinstance(node, ast.Attribute)
}


@pytest.mark.parametrize(("section", "name"), KNOBS, ids=[f"{section}.{name}" for section, name in KNOBS])
def test_every_setting_is_read(section: str, name: str) -> None:
    assert name in READ


def test_params_yaml_shows_every_setting_with_its_default() -> None:
    shown = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    defaults = Params(rounds=shown["rounds"]).model_dump(by_alias=True)
    assert shown == defaults

"""`steptool run TARGETS`: what DVC is asked for."""

from __future__ import annotations

import pytest

from steptool.config.places import PARAMS
from steptool.config.settings import load_params
from steptool.orchestration.graph import repro
from tests.project import ROOT


@pytest.mark.parametrize(
    ("targets", "addresses"),
    [
        ([], []),
        (["report"], ["report"]),
        (["train-ppo1"], ["train-ppo1"]),
        (["sample"], ["sample-r1", "sample-r2"]),
        (["train", "report"], ["train-sft", "train-ppo1", "train-ppo2", "train-rft", "report"]),
        (["ours"], ["ours"]),  # a stage that the project added
    ],
)
def test_a_verb_stands_for_all_its_stages(targets: list[str], addresses: list[str]) -> None:
    assert repro._addresses(load_params(ROOT / PARAMS), targets) == addresses

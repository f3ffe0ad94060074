"""A fresh project that trains on WorkBench, from GPT-4's recorded runs to the comparison, as somebody would type it.

The toy model and the real engine; stages as the profile has them, less of everything.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from steptool.core.storage import read_jsonl
from steptool.core.types import Trajectory
from tests.test_unchecked import Project

PACK = os.environ.get("STEPTOOL_WORKBENCH", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not Path(PACK, "queries.jsonl").is_file(), reason="STEPTOOL_WORKBENCH names no such folder"),
]
LESS = """
world: {dev: 0.85, test: 0.05}    # 70 training tasks, 50 for testing
demonstrations: {runs: [gpt-4_domains]}
sample: {max_tokens: 8192}
rounds: {r1: {from: sft}}
arms:
  sft: {method: sft, from: base, data: [demonstrations]}
  ppo: {method: step_ppo, from: sft, data: [r1]}
compare: [[ppo, sft]]
register: {arm: ppo}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("team"))
    made.steptool("init", "office")
    made.root = made.root / "office"
    return made


def test_the_profile_alone_makes_a_project_of_the_benchmark(project: Project) -> None:
    before = (project.root / "params.yaml").read_bytes()
    said = project.steptool("params", "--profile", "workbench")
    assert "world workbench, base smollm2, arms sft, ppo1, ppo2, rft" in said
    said = project.steptool("prepare", status=2)
    assert "set world.path in params.yaml, or STEPTOOL_WORKBENCH, to the folder that holds queries.jsonl" in said
    (project.root / "params.yaml").write_bytes(before)


def test_every_stage_runs_with_it(project: Project) -> None:
    project.environment["STEPTOOL_WORKBENCH"] = PACK
    (project.root / "less.yaml").write_text(LESS)
    for profile in ("workbench", "tiny", "less.yaml"):
        project.steptool("params", "--profile", profile)
    said = project.steptool("run")
    assert "70 train, 470 dev, 50 test" in said
    assert "8 trajectories" in said
    summary = project.read("metrics/evaluation/summary.json")
    assert summary.keys() >= {"sft", "ppo"}
    shown = read_jsonl(project.root / "data/tasks/demonstrations.jsonl", Trajectory)
    assert {each.answer for each in shown} == {"done"}
    assert project.read("metrics/evaluation/comparisons.json")[0]["measure"] == "solved"
    assert "ppo" in project.steptool("results")

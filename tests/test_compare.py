"""`make compare` on the tiny profile: with DVC, a policy trained from a base of random weights, and an engine that acts
by rules."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.project import ROOT, copy_project
from tests.test_pipeline import run

PIPELINE = "benchmarks/compare/dvc.yaml"
MADE = Path("benchmarks/compare/made")
SAYS = '{"when": "hm", "say": "Finish {\\"give_up\\": true}"}\n{"when": "", "say": "hm"}\n'


@pytest.mark.slow
def test_what_is_compared_is_made_once_and_a_change_makes_again_what_it_changes(tmp_path: Path) -> None:
    copy_project(tmp_path)
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("__pycache__", "made"))
    (tmp_path / "says.jsonl").write_text(SAYS)
    settings = tmp_path / "benchmarks/compare/settings.yaml"
    yaml = YAML()
    wanted = yaml.load(settings)
    wanted |= {"seeds": [17], "variants": ["rft", "published"], "calls": "2,3"}
    engine = "--set engine.use=steptool.engines.fake:RulesEngine --set engine.rules=says.jsonl"
    wanted["options"] = f"--profile tiny {engine} --set methods.step_ppo.max_engine_kl=1000"
    yaml.dump(wanted, settings)
    run(tmp_path, "git", "init", "-q")
    first = run(tmp_path, "dvc", "repro", PIPELINE)
    assert "Running stage 'benchmarks/compare/dvc.yaml:policy@rft-17'" in first
    table = (tmp_path / MADE / "table.md").read_text()
    assert "## exact-6: dev tasks, at most 2 actions" in table and "at most 3 actions" in table
    assert re.search(r"\| rft \| 0\.0.% \|", table)
    again = run(tmp_path, "dvc", "repro", PIPELINE)
    assert "Running stage" not in again

    wanted["variants"] = ["rft", "published", "outcome"]
    yaml.dump(wanted, settings)
    more = run(tmp_path, "dvc", "repro", PIPELINE)
    assert [line for line in more.splitlines() if line.startswith("Running stage")] == [
        "Running stage 'benchmarks/compare/dvc.yaml:policy@outcome-17':",
        "Running stage 'benchmarks/compare/dvc.yaml:table':",
    ]

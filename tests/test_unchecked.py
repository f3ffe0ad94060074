"""A project whose tasks have no check, from its tasks to the registry, on the toy model and with an engine of rules.

    every attempt looks a book up, and answers with its price: a grounded answer, of which nobody can tell whether it
    is right

One project for all tests, in their order: the last one gives half of its test tasks a check.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.project import ROOT

pytestmark = pytest.mark.slow
RULES = [
    {"when": '"price"', "say": 'Finish {"answer": "9.5"}'},
    {"when": "", "say": 'look_up {"id": "b1"}'},
]
SETTINGS: dict[str, Any] = {
    "engine": {"use": "steptool.engines.fake:RulesEngine", "rules": "says.jsonl"},
    "reward": {"use": "auto"},
    "arms": {
        "sft": {"method": "sft", "from": "base", "data": ["demonstrations"]},
        "ppo": {"method": "step_ppo", "from": "sft", "data": ["r1"], "settings": {"max_engine_kl": 1.0e6}},
    },
    "compare": [["ppo", "sft"]],
}


class Project:
    def __init__(self, root: Path) -> None:
        self.root = root
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("STEPTOOL_", "MLFLOW_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        who = {f"GIT_{one}_{what}": f"t@{one}.org" for one in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        self.environment = {**kept, **who, "PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}

    def steptool(self, *arguments: str, status: int = 0) -> str:
        command = [sys.executable, "-m", "steptool.cli", *arguments]
        done = subprocess.run(command, cwd=self.root, env=self.environment, capture_output=True, text=True)
        assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
        return " ".join((done.stdout + done.stderr).split())

    def set(self, **settings: Any) -> None:
        yaml = YAML()
        document = yaml.load((self.root / "params.yaml").read_text())
        document |= settings
        with (self.root / "params.yaml").open("w") as file:
            yaml.dump(document, file)

    def read(self, path: str) -> Any:
        return json.loads((self.root / path).read_text())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("team"))
    made.steptool("init", "shop")
    made.root = made.root / "shop"
    lines = [json.dumps({name: value for name, value in each.items() if name != "check"}) for each in tasks(made.root)]
    (made.root / "tasks.jsonl").write_text("\n".join(lines))
    (made.root / "says.jsonl").write_text("\n".join(map(json.dumps, RULES)))
    made.steptool("params", "--profile", "tiny")
    made.set(**SETTINGS)
    return made


def tasks(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "tasks.jsonl").read_text().splitlines()]


def test_a_project_without_any_check_goes_from_its_tasks_to_the_registry(project: Project) -> None:
    said = project.steptool("run")
    assert "none with a verdict" in said
    assert "8 trajectories, 0 rewarded by their outcome, 8 by their calls alone" in said
    assert "of which none have a verdict" in said
    assert "gives grounded answers to 100 %" in project.steptool("results")
    assert project.read("data/validated/r1/summary.json")["solve_rate"] is None
    summary = project.read("metrics/evaluation/summary.json")
    assert summary["ppo"]["grounded"] == summary["ppo"]["finish_rate"] == summary["ppo"]["call_success"] == 1
    assert "pass_rate" not in summary["ppo"]
    assert project.read("metrics/evaluation/comparisons.json")[0]["measure"] == "grounded"
    assert "Grounded answers" in (project.root / "reports/index.html").read_text()

    refused = project.steptool("promote", status=1)
    assert "no task of the evaluation of the candidate has a verdict" in refused
    assert "promote.measure: grounded" in refused
    project.set(promote={"measure": "grounded", "margin": -1.0})
    assert "promoted" in project.steptool("promote")


def test_rejection_sampling_without_any_verdict_stops_and_says_what_to_do(project: Project) -> None:
    rft = {"method": "rft", "from": "sft", "data": ["r1"]}
    project.set(arms={**SETTINGS["arms"], "rft": rft})
    said = project.steptool("run", status=1)
    assert "none of 8 trajectories has a verdict, and rft imitates those that solved their task" in said
    assert "take the arm out of `arms`" in said
    project.set(arms=SETTINGS["arms"])


def test_a_project_with_some_checks_compares_the_tasks_that_have_one(project: Project) -> None:
    lines = tasks(project.root)
    tested = [each for each in lines if each.get("split") == "test"]
    for each in tested[: len(tested) // 2 + len(tested) % 2]:
        each["check"] = {"kind": "number", "expected": 9.5}
    (project.root / "tasks.jsonl").write_text("\n".join(map(json.dumps, lines)))
    said = project.steptool("run")
    assert "none with a verdict" in said, "of the training tasks"
    judged = len(tested) // 2 + len(tested) % 2
    assert f"of which {judged} have a verdict" in said
    summary = project.read("metrics/evaluation/summary.json")
    assert (summary["ppo"]["pass_rate"], summary["ppo"]["tasks_with_verdict"]) == (1, judged)
    assert project.read("metrics/evaluation/comparisons.json")[0]["measure"] == "solved"

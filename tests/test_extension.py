"""The doors are open: whatever a team brings is one file and one line of params.yaml.

A project folder that is not the checkout, on the tiny profile. Each plugin below is added to it, one after the other.
Then exactly the stages run again that use it, or read what these make; the others stay as they are, and nothing in the
package changes.

    one arm:   base ─ prepare ─ train-sft ─ sample-r1 ─ annotate-r1 ─ validate-r1 ─ train-ppo1 ─ evaluate ─ report
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.project import ROOT

EXAMPLES = ROOT / "examples" / "plugins"
ARMS = {
    "rounds": {"r1": {"from": "sft"}},
    "arms": {
        "sft": {"method": "sft", "from": "base", "data": ["demonstrations"]},
        "ppo1": {"method": "step_ppo", "from": "sft", "data": ["r1"], "settings": {"max_engine_kl": 1.0e6}},
    },
    "compare": [["ppo1", "sft"]],
    "register": {"arm": "ppo1"},
}
"""An engine of one's own samples from another distribution than the policy, which step-grained PPO refuses else."""
MEASURED = {"evaluate", "report"}
TRAINED = {"train-ppo1", *MEASURED}
VALIDATED = {"validate-r1", *TRAINED}
SCORED = {"annotate-r1", *VALIDATED}
SAMPLED = {"sample-r1", *SCORED}
FROM_THE_START = {"train-sft", *SAMPLED}

EXTENSIONS: dict[str, tuple[str | None, dict[str, Any], set[str]]] = {
    "a metric": ("repeats.py", {"metrics": {"repeats": {"use": "repeats:Repeats"}}}, MEASURED),
    "an engine": ("parrot.py", {"engine": {"use": "parrot:Parrot"}}, SAMPLED),
    "a policy under evaluation": (None, {"arms": {"theirs": {"folder": "given/theirs"}}}, MEASURED),
    "a method": (
        "dpo.py",
        {
            "methods": {"dpo": {"use": "dpo:Dpo", "lora_first_layer": 0, "minibatches": 2}},
            "arms": {"dpo": {"method": "dpo", "from": "sft", "data": ["r1"]}},
        },
        {"train-dpo", *MEASURED},
    ),
    "a reward form": ("verdict.py", {"reward": {"use": "verdict:Verdict"}}, {*VALIDATED, "train-dpo"}),
    "an annotator": ("courteous.py", {"annotate": {"use": "courteous:Courteous"}}, {*SCORED, "train-dpo"}),
    "a search": ("twice.py", {"search": {"use": "twice:Twice"}}, {*SAMPLED, "train-dpo"}),
    "a format": ("tagged.py", {"format": {"use": "tagged:Tagged"}}, {*FROM_THE_START, "train-dpo"}),
    "a world": (
        "switches.py",
        {"world": {"use": "switches:Switches"}},
        {"prepare", *FROM_THE_START, "train-dpo"},
    ),
    "a source of traces": (
        "log.py",
        {"demonstrations": {"use": "log:ChatLog", "path": "log.jsonl"}},
        {"prepare", *FROM_THE_START, "train-dpo"},
    ),
}
"""What is added: its file in examples/plugins, its settings, and the stages that run again."""


class Project:
    """A folder of a team: settings, DVC, and what is added. The package is not in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("STEPTOOL_", "DVC_", "MLFLOW_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = kept | {"PATH": path, "PYTHONPATH": str(ROOT), "STEPTOOL_PARENT_RUN_ID": "0" * 32}
        self.environment["DVC_NO_ANALYTICS"] = "1"

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=self.root, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def set(self, settings: dict[str, Any]) -> None:
        """Lay settings over params.yaml, as an editor would; a plugin takes the place of another."""
        yaml = YAML()
        document = yaml.load((self.root / "params.yaml").read_text())
        for key, value in settings.items():
            if key in ("arms", "methods", "metrics") and "ppo2" not in document.get(key, {}):
                document[key] = document.get(key, {}) | value
            else:
                document[key] = value
        with (self.root / "params.yaml").open("w") as file:
            yaml.dump(document, file)

    def repro(self) -> set[str]:
        """The stages that `dvc repro` runs, but for `revisions`, which runs each time."""
        self.run("steptool.cli", "graph")
        said = self.run("dvc", "repro")
        return set(re.findall(r"Running stage '([^']+)'", said)) - {"revisions"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("team")
    made = Project(root)
    shutil.copyfile(ROOT / "params.yaml", root / "params.yaml")
    shutil.copytree(ROOT / "profiles", root / "profiles")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    made.run("dvc", "init", "-q")
    made.run("steptool.cli", "params", "--profile", "tiny")
    made.set(ARMS)
    return made


def package() -> dict[str, str]:
    return {str(file): file.read_text() for file in (ROOT / "steptool").rglob("*.py")}


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_whatever_a_team_brings_is_one_file_and_one_line(project: Project) -> None:
    before = package()
    assert project.repro() == {"base", "prepare", *FROM_THE_START}
    assert project.repro() == set()
    (project.root / "given").mkdir()
    shutil.copytree(project.root / "models/sft", project.root / "given/theirs")
    call = {"call": "toggle", "arguments": {"room": "hall"}, "reply": '{"is_on": true}'}
    log = [{"task": f"{index}-{code}", "messages": [call], "answer": "done"} for index, code in _switch_tasks()]
    (project.root / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    for name, (file, settings, stale) in EXTENSIONS.items():
        if file is not None:
            shutil.copyfile(EXAMPLES / file, project.root / file)
        project.set(settings)
        assert project.repro() == stale, name
        assert project.repro() == set(), f"{name}: nothing changed"
    summary = json.loads((project.root / "metrics/evaluation/summary.json").read_text())
    assert summary.keys() == {"sft", "ppo1", "theirs", "dpo"}
    for arm in summary:
        evaluation = json.loads((project.root / f"metrics/evaluation/{arm}.json").read_text())
        assert "repeats" in evaluation["metrics"]["all"]
    assert package() == before


def _switch_tasks() -> list[tuple[int, str]]:
    """Ids of the first training tasks of examples/plugins/switches.py, at the seed of params.yaml."""
    codes = [f"{number:04b}" for number in range(1, 16)]
    return [(index, codes[(index + 17) % len(codes)]) for index in range(4)]

"""A stage is stale when its meaning changed, and only then: what stage `revisions` writes for it is other text.

change                                         stages that run again
a comment, an error's text, tracking, the CLI  none
a new module that nobody uses                  none
the rules                                      annotate, evaluate; and what follows from their outputs
a loss                                         the arms whose methods use it
another world's code                           none
a setting of speed                             none
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from steptool.config.places import REVISIONS
from tests.project import copy_project

ARMS = {"train-sft", "train-ppo1", "train-ppo2", "train-rft"}
ROUNDS = {verb: {f"{verb}-r1", f"{verb}-r2"} for verb in ("sample", "annotate", "validate")}
EVERY = {"base", "prepare", *ARMS, *(name for names in ROUNDS.values() for name in names), "evaluate", "report"}
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("STEPTOOL_", "DVC_"))}


def revisions(project: Path) -> dict[str, str]:
    """What `steptool revisions` writes for every stage."""
    command = [sys.executable, "-m", "steptool.cli", "revisions"]
    environment = ENVIRONMENT | {"PYTHONPATH": str(project)}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {file.stem: file.read_text() for file in (project / REVISIONS).iterdir()}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder)
    return folder


@pytest.fixture(scope="module")
def before(project: Path) -> dict[str, str]:
    return revisions(project)


@pytest.fixture
def restored(project: Path) -> Iterator[Path]:
    """The project, as it was again afterwards."""
    kept = {file: file.read_bytes() for file in (project / "params.yaml", *(project / "steptool").rglob("*.*"))}
    yield project
    for file in (project / "steptool").rglob("*.*"):
        if file not in kept:
            file.unlink()
    for file, content in kept.items():
        file.write_bytes(content)


PPO = {"train-ppo1", "train-ppo2"}
CHANGES = {
    "a comment": ("steptool/annotators/rules.py", "import json", "import json  # text", set()),
    "a docstring": ("steptool/training/losses.py", '"""', '"""Of all: ', set()),
    "an error's text": ("steptool/training/episode.py", "has no prompt tokens", "lacks prompt tokens", set()),
    "tracking": ("steptool/tracking/run.py", "class Tracking", "ANSWER = 42\n\n\nclass Tracking", set()),
    "progress": ("steptool/system/progress.py", "LINE_EVERY_S = 15.0", "LINE_EVERY_S = 5.0", set()),
    "the command line": ("steptool/cli.py", "def _leave(", "ANSWER = 42\n\n\ndef _leave(", set()),
    "the table of plugins": ("steptool/config/plugins.py", '"metrics": {', '"metrics": {"m": "a:B",', set()),
    "another world": ("steptool/worlds/recorded.py", "import json", "import json\n\nANSWER = 42", set()),
    "another method": ("steptool/methods/rft.py", "@dataclass", "ANSWER = 42\n\n\n@dataclass", {"train-rft"}),
    "the world in use": (
        "steptool/worlds/mini/execute.py",
        "import json",
        "import json\n\nANSWER = 42",
        {"prepare", *ROUNDS["sample"], "evaluate"},
    ),
    "the rules": (
        "steptool/annotators/rules.py",
        "import json",
        "import json\n\nANSWER = 42",
        {*ROUNDS["annotate"], "evaluate"},
    ),
    "the loss of PPO": ("steptool/methods/step_ppo.py", "import torch", "import torch\n\nANSWER = 42", PPO),
    "what trains adapters": (
        "steptool/training/trainer.py",
        "import torch",
        "import torch\n\nANSWER = 42",
        {*PPO, "train-rft"},
    ),
    "the page": ("steptool/report/page.html.jinja", "<body", "<body ", {"report"}),
    "the diagnosis": (
        "steptool/checks/diagnosis/tools.py",
        "FEWEST_CALLS = 10",
        "FEWEST_CALLS = 20",
        {*ROUNDS["validate"]},
    ),
    "how attempts are compared": (
        "params.yaml",
        "lambda_step: 0.9",
        "lambda_step: 0.8",
        {*ROUNDS["validate"], *PPO, "report"},
    ),
    "a setting of speed": ("params.yaml", "concurrency: 128", "concurrency: 64", set()),
    "another one": ("params.yaml", "row_tokens: 1024", "row_tokens: 2048", set()),
    "a threshold of the gate": ("params.yaml", "min_pass_rate: 0.3", "min_pass_rate: 0.4", set()),
    "a temperature": (
        "params.yaml",
        "temperature: 0.8",
        "temperature: 0.7",
        {*ROUNDS["sample"], "evaluate", "report"},
    ),
    "a setting of one arm": (
        "params.yaml",
        "learning_rate: 4.0e-4",
        "learning_rate: 5.0e-4",
        {"train-ppo2", "report"},
    ),
}


def test_every_stage_depends_on_what_its_code_means(before: dict[str, str]) -> None:
    assert before.keys() == EVERY
    rounds = before["annotate-r1"] == before["annotate-r2"]
    assert rounds, "the number of a round decides what it samples, not how that is scored"
    assert len(set(before.values())) == len(EVERY) - rounds


@pytest.mark.parametrize(("file", "old", "new", "stale"), CHANGES.values(), ids=CHANGES)
def test_a_stage_is_stale_exactly_when_its_meaning_changed(
    restored: Path, before: dict[str, str], file: str, old: str, new: str, stale: set[str]
) -> None:
    text = (restored / file).read_text()
    assert old in text
    (restored / file).write_text(text.replace(old, new, 1))
    now = revisions(restored)
    assert {name for name in EVERY if now[name] != before[name]} == stale


def test_a_new_method_makes_no_stage_stale(restored: Path, before: dict[str, str]) -> None:
    (restored / "steptool/methods/dpo.py").write_text('"""Direct preference optimisation."""\n\nBETA = 0.1\n')
    assert revisions(restored) == before


def test_a_setting_that_is_left_out_counts_with_its_default(restored: Path, before: dict[str, str]) -> None:
    text = (restored / "params.yaml").read_text()
    line = next(line for line in text.splitlines() if line.startswith("  tool_timeout_s:"))
    (restored / "params.yaml").write_text(text.replace(line + "\n", ""))
    assert revisions(restored) == before

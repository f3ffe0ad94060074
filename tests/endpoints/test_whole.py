"""The whole graph with a teacher and a rival behind an endpoint, the real engine, DVC and MLflow.

expert behind the endpoint ─ demonstrations ─ sft ─┬─ evaluate ─ report, register
                             another model ────────┘
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient
from ruamel.yaml import YAML

from steptool.core.storage import read_jsonl
from steptool.core.types import Trajectory
from steptool.worlds.mini import MiniWorld
from tests.endpoints.expert import expert
from tests.endpoints.fake import Fake, fake, says
from tests.project import copy_project
from tests.test_pipeline import ENVIRONMENT

KEY = "sk-a-secret-of-the-team"
WORLD = {"train_tasks": 24, "dev_tasks": 12, "test_tasks": 12}


def run(folder: Path, *command: str) -> str:
    environment = ENVIRONMENT | {"TEAM_KEY": KEY}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def write(folder: Path, endpoint: Fake) -> None:
    """The tiny profile, with the demonstrations of a teacher, and a rival in place of the other arms."""
    yaml, path = YAML(), folder / "params.yaml"
    settings = yaml.load(path)
    elsewhere = {"url": endpoint.url, "key": "TEAM_KEY", "price_in": 1.0, "price_out": 4.0, "ceiling": 1.0}
    settings["demonstrations"] = {"use": "endpoint", "model": "teacher", "parallel": False, "tasks": 12, **elsewhere}
    settings["rounds"], settings["register"] = {}, {"arm": "sft"}
    settings["arms"] = {
        "sft": {"method": "sft", "from": "base", "data": ["demonstrations"]},
        "prod": {"endpoint": {"model": "prod", **elsewhere}},
    }
    settings["compare"] = [["sft", "prod"]]
    yaml.dump(settings, path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_teacher_is_learned_from_and_a_rival_is_measured(tmp_path: Path) -> None:
    world = MiniWorld(MiniWorld.Config(**WORLD), seed=17)
    teach = expert(world.tasks("train"), world.demonstrations(24, 0.25, 17))
    with fake(lambda request: teach(request) if request["model"] == "teacher" else says("x")) as endpoint:
        copy_project(tmp_path)
        run(tmp_path, "git", "init", "-q")
        run(tmp_path, "steptool", "params", "--profile", "tiny")
        write(tmp_path, endpoint)
        run(tmp_path, "steptool", "graph")
        said = run(tmp_path, "steptool", "run")
        asked = len(endpoint.requests)
        again = run(tmp_path, "dvc", "repro")
        run(tmp_path, "dvc", "repro", "--force", "--single-item", "evaluate")
        assert len(endpoint.requests) == asked, "what was answered is not paid for again"
    assert "attempts are kept" in said
    assert again.count("Running stage") == 1, "it looks at what lies outside, and finds nothing to do"
    kept = read_jsonl(tmp_path / "data/tasks/demonstrations.jsonl", Trajectory)
    assert kept
    assert all(each.outcome.solved == 1.0 and each.policy.name.startswith("teacher at ") for each in kept)
    summary = json.loads((tmp_path / "metrics/evaluation/summary.json").read_text())
    assert summary.keys() == {"sft", "prod"}
    assert "prod answers by messages at an endpoint" in (tmp_path / "reports/index.html").read_text()
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name != 'Default'")
    metrics = [each.data.metrics for each in client.search_runs([experiment.experiment_id])]
    assert any(each.get("prod.paid.answers") == 12 and each["prod.paid.money"] > 0 for each in metrics)
    leaked = [file for file in tmp_path.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]
    assert leaked == [], "the key stands nowhere"

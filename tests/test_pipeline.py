"""The whole graph on the tiny profile, with the real vLLM engine, DVC and MLflow.

run 1   `steptool run`; the stage sample-r1 is killed with SIGKILL in the middle
run 2   the same command: finishes
run 3   `dvc repro`: looks at what is outside of the repository, and has nothing to do
then    the outputs are read back, the model is loaded from the registry, promoted and rolled back
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from tests.project import copy_project

BIN = Path(sys.executable).parent
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "STEPTOOL_", "DVC_"))} | {
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"
}


def run(folder: Path, *command: str, code: int = 0) -> str:
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def kill_stage(folder: Path, verb: str, process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the process of a stage as soon as it has begun to write."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if list((folder / "data/trajectories").glob(".*.tmp")):
            for child in psutil.Process(process.pid).children(recursive=True):
                line = child.cmdline()
                if verb in line and "steptool" in " ".join(line[:2]):
                    child.send_signal(signal.SIGKILL)
                    return
        time.sleep(0.05)
    raise AssertionError(f"stage {verb} did not start to write, or the run ended first")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    copy_project(folder)
    run(folder, "git", "init", "-q")
    run(folder, "steptool", "params", "--profile", "tiny")
    with (folder / "first.log").open("wb") as log:
        first = subprocess.Popen(["steptool", "run"], cwd=folder, env=ENVIRONMENT, stdout=log, stderr=log)
        kill_stage(folder, "sample", first)
        assert first.wait(timeout=120) == 1, (folder / "first.log").read_text()
    assert not (folder / "data/trajectories/r1").exists()
    (folder / "second.log").write_text(run(folder, "steptool", "run"))
    return folder


@pytest.mark.timeout(900)
def test_a_killed_pipeline_finishes_when_it_is_run_again(workspace: Path) -> None:
    log = (workspace / "second.log").read_text()
    assert "Stage 'base' didn't change" in log  # what was finished was kept
    assert re.search(r"register: ppo2 is registered as steptool version 1, the candidate", log)
    assert "report: reports/index.html" in log
    assert "leaked" not in log  # what triton's bindings say of a process that ends with objects alive


@pytest.mark.timeout(120)
def test_the_pipeline_in_mlflow_has_settings_data_results_and_model(workspace: Path) -> None:
    client = MlflowClient(f"sqlite:///{workspace}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name != 'Default'")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    second, first = client.search_runs([experiment.experiment_id], "tags.`steptool.kind` = 'pipeline'")
    assert (first.info.status, second.info.status) == ("FAILED", "FINISHED")
    assert {"seed", "reward.gamma"} <= second.data.params.keys()
    assert second.data.metrics["pass_rate"] >= 0
    assert second.data.tags["steptool.model"] == "models:/steptool/1"
    assert "/#/" not in second.data.tags["mlflow.note.content"]
    contexts = {given.dataset.name: given.tags[0].value for given in second.inputs.dataset_inputs}
    assert {contexts[path] for path in ("data/tasks", "models/base", "models/ppo1")} == {"output"}
    (stage,) = client.search_runs([experiment.experiment_id], "tags.`steptool.stage` = 'train-sft'")
    contexts = {given.dataset.name: given.tags[0].value for given in stage.inputs.dataset_inputs}
    assert contexts == {"tasks": "input", "policy base": "input", "train sft output": "output"}


@pytest.mark.timeout(120)
def test_a_second_repro_does_nothing_in_under_ten_seconds(workspace: Path) -> None:
    started = time.monotonic()
    log = run(workspace, "dvc", "repro")
    assert time.monotonic() - started < 10
    assert re.findall(r"Running stage '(.+)'", log) == ["revisions"]
    assert run(workspace, "dvc", "status").count("changed") == 1  # "always changed"


def test_every_output_has_a_manifest_that_says_what_determines_it(workspace: Path) -> None:
    for folder in ("data/tasks", "data/scored/r1", "models/ppo2", "metrics/evaluation", "reports"):
        manifest = json.loads((workspace / folder / "manifest.json").read_text())
        assert manifest["seed"] == 17
        assert str(workspace) not in json.dumps(manifest)


def test_stages_that_neither_sample_nor_train_repeat_byte_for_byte(workspace: Path) -> None:
    lock = (workspace / "dvc.lock").read_bytes()
    for stage in ("prepare", "annotate-r1", "validate-r1"):
        run(workspace, "dvc", "repro", "--single-item", "--force", "--no-run-cache", stage)
    assert (workspace / "dvc.lock").read_bytes() == lock


def test_the_report_needs_no_network(workspace: Path) -> None:
    page = (workspace / "reports/index.html").read_text()
    assert "default-src 'none'" in page
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)


@pytest.mark.timeout(300)
def test_promotion_and_rollback_through_the_command_line(workspace: Path) -> None:
    """The toy model solves nothing, which passes no bar however low; one task solved passes those of the profile."""
    said = run(workspace, "steptool", "promote", "--by", "ada", code=1)
    assert "version 1: refused" in said
    assert "it solved no task" in said
    assert "was registered before" in run(workspace, "steptool", "register")
    _let_the_last_arm_solve_a_task(workspace)
    run(workspace, "steptool", "register")
    said = run(workspace, "steptool", "promote", "--by", "ada")
    assert "version 2: promoted" in said
    assert "the first champion: +8.3% against sft" in said
    again = run(workspace, "steptool", "promote", code=2)
    assert "is the champion already" in again
    assert "no champion before it" in run(workspace, "steptool", "rollback", "--reason", "test", code=2)


def _let_the_last_arm_solve_a_task(workspace: Path) -> None:
    path = workspace / "metrics/evaluation/ppo2.json"
    evaluation = json.loads(path.read_text())
    evaluation["solved"][min(evaluation["solved"])] = 1.0
    overall = evaluation["metrics"]["all"]
    overall["pass_rate"] = {"value": 1 / 12, "low": 0.0, "high": 0.25}
    path.unlink()  # DVC's cache may be what lies there
    path.write_text(json.dumps(evaluation))


@pytest.mark.timeout(120)
def test_bad_input_ends_with_two_and_loses_nothing(workspace: Path) -> None:
    params = workspace / "params.yaml"
    good = params.read_text()
    before = (workspace / "data/tasks/manifest.json").read_bytes()
    params.write_text(good.replace("  count: 16", "  cuont: 16"))
    said = run(workspace, "steptool", "prepare", code=2)
    params.write_text(good)
    assert "params.yaml:" in said
    assert "did you mean 'count'?" in said
    assert (workspace / "data/tasks/manifest.json").read_bytes() == before


@pytest.mark.timeout(120)
def test_a_truncated_file_is_named_with_its_line(workspace: Path) -> None:
    tasks = workspace / "data/tasks/train.jsonl"
    good = tasks.read_bytes()
    tasks.write_bytes(good[:-40])
    said = run(workspace, "steptool", "annotate", "r1", code=2)
    tasks.write_bytes(good)
    assert "train.jsonl:25" in said
    assert "fix:" in said

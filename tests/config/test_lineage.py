"""What dvc.lock will say of an output is what the output was made of, or the stage has failed.

a stage runs ──────────────────────────┐
meanwhile     a setting, the code or an input that dvc.yaml names for it changes   fails, writes nothing
              anything else changes, or a file's time alone                        ends well
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from steptool.config import lineage
from steptool.config.lineage import (
    check_state,
    disagreements,
    read_lock,
    read_yaml,
    refuse_false_lineage,
    refuse_unless_written,
    spec_of,
    stage_code,
)
from steptool.config.places import REVISIONS, TRAJECTORIES
from steptool.config.settings import load_params
from steptool.core.errors import DataError, InputError, ParamsError, StepToolError
from steptool.core.storage import write_json
from steptool.stages.common import stage
from steptool.tracking.run import PARENT_VARIABLE
from steptool.worlds.mini.world import MiniWorld
from tests.project import copy_project
from tests.stages.test_external import ENVIRONMENT

OUT, NOTED = TRAJECTORIES / "r1", REVISIONS / "sample-r1.json"
TASKS = Path("data/tasks/train.jsonl")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a copy of the project, in which stages track nothing."""
    copy_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PARENT_VARIABLE, "none")
    TASKS.parent.mkdir(parents=True)
    TASKS.write_text("tasks")
    write_json(NOTED, {"content": {"world": "pack 1"}})
    monkeypatch.setattr(MiniWorld, "content", staticmethod(lambda config: "pack 1"), raising=False)
    return tmp_path


def run(meanwhile: Callable[[], object]) -> None:
    """Stage `sample` of round r1, while something happens."""
    params = load_params()
    uses, inputs = {"sample": params.sample}, {"tasks": TASKS.parent}
    with stage("sample", OUT, params, uses=uses, inputs=inputs, argument="r1") as running:
        (running.out / "x").write_text("made")
        meanwhile()


def edit(path: str, old: str, new: str) -> Callable[[], object]:
    def do() -> None:
        text = Path(path).read_text()
        assert old in text
        Path(path).write_text(text.replace(old, new, 1))

    return do


def touch(path: str) -> Callable[[], object]:
    return lambda: os.utime(path, (1, 1))


@pytest.mark.parametrize(
    ("meanwhile", "named"),
    [
        (edit("params.yaml", "temperature: 0.8", "temperature: 0.7"), "params.yaml: sample"),
        (edit("params.yaml", "seed: 17", "seed: 18"), "params.yaml: seed"),
        (edit("params.yaml", "dtype: auto", "dtype: float32"), r"params.yaml: model\.dtype"),
        (edit("params.yaml", "train_tasks: 640", "train_tasks: 641"), "params.yaml: world"),
        (edit(str(TASKS), "tasks", "tusks"), "data/tasks"),
        (TASKS.unlink, "data/tasks"),
        (lambda: TASKS.with_name("more.jsonl").touch(), "data/tasks"),
    ],
)
def test_what_changes_while_a_stage_runs_ends_it(checkout: Path, meanwhile: Callable[[], object], named: str) -> None:
    with pytest.raises(StepToolError, match=rf"changed while the stage ran: {named}") as caught:
        run(meanwhile)
    assert caught.value.exit_code == 1
    assert caught.value.fix == "run the same command again"
    assert not list(OUT.parent.iterdir())


@pytest.mark.parametrize(
    "meanwhile",
    [
        edit("params.yaml", "margin: 0.0", "margin: 0.1"),
        edit("params.yaml", "learning_rate: 1.0e-3", "learning_rate: 2.0e-3"),
        edit("params.yaml", "seed: 17", "seed: 17   # a comment"),
        edit("steptool/report/page.py", "import", "import  "),
        touch("steptool/core/types.py"),
        touch(str(TASKS)),
        lambda: Path("steptool/worlds/__pycache__").mkdir(exist_ok=True),
        lambda: TASKS.with_name(".x.tmp").touch(),
    ],
)
def test_what_the_stage_does_not_read_may_change(checkout: Path, meanwhile: Callable[[], object]) -> None:
    run(meanwhile)
    manifest = json.loads((OUT / "manifest.json").read_text())
    assert manifest["external"] == {"world": "pack 1"}
    assert list(manifest["settings"]) == ["model.dtype", "sample", "seed", "world"]


def test_what_a_world_reads_and_changes_while_a_stage_runs_ends_it(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = ["pack 1"]
    monkeypatch.setattr(MiniWorld, "content", staticmethod(lambda config: now[-1]))
    with pytest.raises(StepToolError, match=r"changed while the stage ran: what world reads"):
        run(lambda: now.append("pack 2"))
    assert not OUT.exists()


def test_what_a_world_reads_and_is_not_what_was_noted_is_bad_input(checkout: Path) -> None:
    write_json(NOTED, {"content": {"world": "pack 2"}})
    with pytest.raises(DataError, match=r"sample-r1\.json: says world 'pack 2', but here it is now 'pack 1'"):
        run(lambda: None)


def test_code_that_changes_while_a_stage_runs_ends_it(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = iter(["1", "2"])
    monkeypatch.setattr(lineage, "stage_code", lambda spec: next(codes))
    with pytest.raises(StepToolError, match="changed while the stage ran: the code that it runs"):
        run(lambda: None)
    assert not OUT.exists()


def test_other_code_than_was_noted_is_refused_where_dvc_records_the_output(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a node that has another version of the package. By hand, nothing is recorded, so any code may run."""
    write_json(NOTED, {"code": "1", "settings": "2"})
    run(lambda: None)
    monkeypatch.setenv("DVC_STAGE", "sample-r1")
    with pytest.raises(DataError, match=r"(?s)says code '1', but here.*the same code"):
        run(lambda: None)
    write_json(NOTED, {"code": stage_code(spec_of(load_params(), "sample", "r1")), "settings": "older ones"})
    run(lambda: None)


def test_a_stage_that_the_graph_does_not_have_is_bad_input(checkout: Path) -> None:
    with pytest.raises(ParamsError, match=r"no stage sample-r9\n  fix: name one of base, prepare, .*sample-r1"):
        spec_of(load_params(), "sample", "r9")


def test_settings_that_changed_while_the_stage_began_end_it(checkout: Path) -> None:
    params = load_params()
    edit("params.yaml", "temperature: 0.8", "temperature: 0.7")()
    with (
        pytest.raises(StepToolError, match="changed while the stage began"),
        stage("sample", OUT, params, uses={}, inputs={}, argument="r1"),
    ):
        pass


# Afterwards: dvc.lock against the manifests


def lock(entry: dict[str, object]) -> None:
    Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {"sample-r1": entry}}))


def test_a_lock_that_says_otherwise_than_the_output_is_named(checkout: Path) -> None:
    run(lambda: None)
    made_with = json.loads((OUT / "manifest.json").read_text())["settings"]
    lock({"params": {"params.yaml": made_with}, "outs": [{"path": str(OUT)}]})
    assert disagreements(read_lock().stages) == {}
    refuse_false_lineage(read_lock().stages)
    lock({"params": {"params.yaml": {**made_with, "seed": 18}}, "outs": [{"path": str(OUT)}]})
    assert disagreements(read_lock().stages) == {"sample-r1": ["seed"]}
    with pytest.raises(StepToolError, match=r"(?s)disagree about seed.*dvc repro --force --single-item sample-r1"):
        refuse_false_lineage(read_lock().stages)


@pytest.mark.parametrize("manifest", [None, "", "[]", "{}", '{"settings": 3}', "\x00", '{"settings": {"seed": 1'])
def test_an_output_without_a_manifest_that_can_be_read_is_left_to_dvc(checkout: Path, manifest: str | None) -> None:
    OUT.mkdir(parents=True)
    if manifest is not None:
        (OUT / "manifest.json").write_text(manifest)
    lock({"params": {"params.yaml": {"seed": 18}}, "outs": [{"path": str(OUT)}]})
    assert disagreements(read_lock().stages) == {}


@pytest.mark.parametrize(
    "text",
    [
        "stages:\n<<<<<<< HEAD\n  a: {cmd: x}\n=======\n  a: {cmd: y}\n>>>>>>> theirs\n",
        "stages: [",
        "\x00",
        "a: b: c",
        b"\xff\xfe\x00",
    ],
)
def test_a_lock_that_is_not_yaml_is_one_plain_error(checkout: Path, text: str | bytes) -> None:
    Path("dvc.lock").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ParamsError, match=r"^dvc\.lock(:\d+)?: ") as caught:
        disagreements(read_lock().stages)
    assert len(str(caught.value).splitlines()) == 2


SHAPES = ["3", "[]", "stages: 3", "stages: {a: 3}", "stages: {a: {outs: 3}}", "stages: {1: {}}"]


@pytest.mark.parametrize("text", SHAPES)
def test_a_lock_of_another_shape_is_one_plain_error(checkout: Path, text: str) -> None:
    Path("dvc.lock").write_text(text)
    with pytest.raises(ParamsError, match=r"^dvc\.lock: not what DVC reads") as caught:
        disagreements(read_lock().stages)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    "text",
    [
        *(
            "3",
            "[]",
            "stages: []",
            "stages: {prepare: 1}",
            "stages: {prepare: {do: 3}}",
            "stages: {prepare: {deps: 5}}",
        ),
        *("stages: {prepare: {params: x}}", "stages: [", "a: 2024-99-99", "<<<<<<< HEAD", "{a: " * 5000),
    ],
)
def test_a_pipeline_file_of_another_shape_is_one_plain_error(checkout: Path, text: str) -> None:
    Path("dvc.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"^dvc\.yaml(:\d+)?: ") as caught:
        refuse_unless_written(load_params())
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("name", ["dvc.yaml", "dvc.lock"])
def test_a_folder_in_the_place_of_a_file_of_dvc_is_one_plain_error(checkout: Path, name: str) -> None:
    Path(name).unlink(missing_ok=True)
    Path(name).mkdir()
    with pytest.raises(ParamsError, match="cannot be read"):
        read_yaml(Path(name))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "1", "null", '{"a": 1}', '{"read": 5}', '{"write": {"/x": {"pid": "z"}}}', "[" * 100_000, None],
)
def test_what_dvc_cannot_read_of_its_locks_is_named_before_dvc_runs(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    monkeypatch.setattr("steptool.config.lineage.REWRITTEN_S", 0.0)
    rwlock = Path(".dvc/tmp/rwlock")
    rwlock.parent.mkdir(parents=True, exist_ok=True)
    rwlock.mkdir() if text is None else rwlock.write_text(text)
    with pytest.raises(InputError, match=r"damaged.*\n.*rm -r \.dvc/tmp/rwlock"):
        check_state()


@pytest.mark.parametrize("text", ["{}", '{"read": {"/x": [{"pid": 1, "cmd": "dvc repro"}]}, "write": {}}'])
def test_locks_that_dvc_wrote_pass(checkout: Path, text: str) -> None:
    Path(".dvc/tmp").mkdir(parents=True, exist_ok=True)
    Path(".dvc/tmp/rwlock").write_text(text)
    check_state()


@pytest.mark.parametrize("text", [None, "", "schema: '2.0'", "stages: {a: {cmd: x, outs: [{path: gone, md5: '1'}]}}"])
def test_a_lock_without_outputs_holds_no_disagreement(checkout: Path, text: str | None) -> None:
    if text is not None:
        Path("dvc.lock").write_text(text)
    assert disagreements(read_lock().stages) == {}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_setting_changed_under_a_running_repro_does_not_become_the_origin(checkout: Path) -> None:
    subprocess.run(["git", "init", "-q"], check=True)
    command = [sys.executable, "-m", "dvc", "repro", "prepare"]
    environment = ENVIRONMENT | {"PYTHONPATH": str(checkout)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as repro:
        while not Path("data/.tasks.tmp").exists():
            assert repro.poll() is None
            time.sleep(0.01)
        edit("params.yaml", "count: 320", "count: 321")()
        said = repro.communicate()[0]
    assert repro.returncode != 0
    assert "changed while the stage ran: params.yaml: demonstrations" in said
    subprocess.run(command, env=environment, check=True)
    assert disagreements(read_lock().stages) == {}
    assert json.loads(Path("data/tasks/manifest.json").read_text())["params"]["demonstrations"]["count"] == 321


@pytest.mark.parametrize(
    "text",
    [
        "stages: [",
        "[" * 5000,
        "a: 1\na: 2",
        "a: *b",
        "a: 2024-99-99",
        f"a: {'9' * 5000}",
        "\x00",
        "a: 1\n=======\na: 2",
        "!!python/object:os.system x",
        b"\xff",
        None,
    ],
    ids=lambda text: str(text)[:20],
)
def test_a_lock_that_cannot_be_read_is_named_in_two_lines(text: str | bytes | None, tmp_path: Path) -> None:
    """None: a folder of that name."""
    lock = tmp_path / "dvc.lock"
    if text is None:
        lock.mkdir()
    else:
        lock.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ParamsError) as caught:
        read_lock(tmp_path)
    first, second = str(caught.value).splitlines()
    assert first.startswith(str(lock))
    assert "git checkout" in second

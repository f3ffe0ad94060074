"""A registered model is, bit for bit, the one that was evaluated."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow.artifacts
import pytest
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from steptool.core.errors import DataError, InputError, ModelError, TrackingError
from steptool.core.storage import file_hash, write_json
from steptool.core.types import Revision
from steptool.evaluation.metrics import Evaluation
from steptool.registry.models import find_version, load_baseline, load_evaluation, load_registered, register
from steptool.tracking.relocation import follow_artifacts
from steptool.tracking.run import Tracking
from tests.registry.conftest import nothing_solved

Build = Callable[..., Evaluation]
RegisterAs = Callable[..., int]


def test_a_version_says_what_made_it(tracking: Tracking, evaluation_of: Build, register_as: RegisterAs) -> None:
    evaluation = evaluation_of("110")
    assert register_as("a", evaluation) == 1
    version = find_version(tracking, "agent", "candidate")
    assert version.tags["lineage.data"] == "d1"
    assert version.tags["lineage.seed"] == "17"
    assert load_evaluation(tracking, version) == evaluation


def test_registering_the_same_again_makes_no_second_version(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs
) -> None:
    assert register_as("a", evaluation_of("110")) == 1
    assert register_as("b", evaluation_of("111")) == 2
    assert register_as("a", evaluation_of("110")) == 1
    assert find_version(tracking, "agent", "candidate").version == 1
    assert register_as("a", evaluation_of("100")) == 3  # the same weights, measured anew


@pytest.mark.parametrize("alias", ["candidate", "champion"])
def test_before_anything_is_registered_the_way_to_a_first_version_is_named(tracking: Tracking, alias: str) -> None:
    with pytest.raises(ModelError, match=f"no version '{alias}'") as caught:
        find_version(tracking, "agent", alias)
    assert str(caught.value.fix).startswith("`steptool run` trains, measures and registers one")


def test_a_champion_that_is_missing_is_made_of_the_candidate(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs
) -> None:
    register_as("a", evaluation_of("110"))
    with pytest.raises(ModelError, match="no version 'champion'") as caught:
        find_version(tracking, "agent", "champion")
    assert str(caught.value.fix).startswith("`steptool promote` makes one of the candidate")


def test_a_registration_that_broke_off_is_not_taken_for_a_whole_one(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(*_: object) -> None:
        raise MlflowException("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(tracking.client, "log_text", disk_full)
        with pytest.raises(TrackingError, match="cannot register agent: disk full"):
            register_as("a", evaluation_of("1"))
    with pytest.raises(ModelError, match="no version 'candidate'"):
        find_version(tracking, "agent", "candidate")
    assert register_as("a", evaluation_of("1")) == 2


def test_registering_the_same_again_leaves_no_copy_of_the_model(
    evaluation_of: Build, register_as: RegisterAs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a place named, MLflow downloads from a server into a temporary folder that nobody removes."""
    places: list[str | None] = []
    download = mlflow.artifacts.download_artifacts

    def noted(*, dst_path: str | None = None, **options: Any) -> str:
        places.append(dst_path)
        return str(download(dst_path=dst_path, **options))

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", noted)
    for _ in range(2):
        register_as("a", evaluation_of("110"))
    assert len(places) == 1
    assert places[0] is not None
    assert not Path(places[0]).exists()


def test_a_model_comes_back_whole_by_alias_or_number(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs, tmp_path: Path
) -> None:
    register_as("a", evaluation_of("1"))
    for which in ("candidate", 1, "1"):
        folder = load_registered(tracking, "agent", which)
        assert (folder / "model.safetensors").read_text() == "a"
    out = tmp_path / "fetched" / "model"
    assert load_registered(tracking, "agent", "candidate", out=out) == out
    assert (out / "config.json").read_text() == "a"
    assert list(out.parent.iterdir()) == [out]
    with pytest.raises(InputError, match="already there"):
        load_registered(tracking, "agent", "candidate", out=out)


@pytest.mark.parametrize("which", ["champion", 7, "nonsense"])
def test_a_version_that_is_not_there_is_named(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs, which: str | int
) -> None:
    register_as("a", evaluation_of("1"))
    with pytest.raises(ModelError, match=f"registered model agent: no version {which!r}"):
        load_registered(tracking, "agent", which)


def test_a_damaged_artifact_is_not_loaded(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs, tmp_path: Path
) -> None:
    register_as("a", evaluation_of("1"))
    (load_registered(tracking, "agent", 1) / "model.safetensors").write_text("b")
    with pytest.raises(ModelError, match="was registered as"):
        load_registered(tracking, "agent", 1)
    with pytest.raises(ModelError, match="was registered as"):
        load_registered(tracking, "agent", 1, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out.*"))


def append(folder: Path) -> None:
    with (folder / "model/config.json").open("a") as file:
        file.write("x")


def add_a_file(folder: Path) -> None:
    (folder / "model/extra.safetensors").write_text("x")


def lose_a_file(folder: Path) -> None:
    (folder / "model/model.safetensors").unlink()


def swap_a_file_for_a_folder(folder: Path) -> None:
    lose_a_file(folder)
    (folder / "model/model.safetensors").mkdir()


def lose_the_model(folder: Path) -> None:
    shutil.rmtree(folder / "model")


def lose_everything(folder: Path) -> None:
    shutil.rmtree(folder)


DAMAGES = [append, add_a_file, lose_a_file, swap_a_file_for_a_folder, lose_the_model, lose_everything]


@pytest.mark.parametrize("damage", DAMAGES)
def test_registering_the_same_again_mends_a_damaged_version(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs, damage: Callable[[Path], None]
) -> None:
    register_as("a", evaluation_of("110"))
    tracking.client.set_registered_model_alias("agent", "champion", "1")
    damage(load_registered(tracking, "agent", "champion").parent)
    with pytest.raises(ModelError, match=r"was registered as .*\n.*`steptool register ppo`"):
        load_registered(tracking, "agent", "champion")
    assert register_as("a", evaluation_of("110")) == 1
    folder = load_registered(tracking, "agent", "champion")
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (folder.parent / "MLmodel").is_file()


@pytest.mark.parametrize("text", [None, "", "{}", "[]", "7", "null", '{"metrics": NaN}', '{"metrics": {}}', "x" * 9999])
@pytest.mark.parametrize(
    ("file", "load"), [("evaluation.json", load_evaluation), ("baseline_evaluation.json", load_baseline)]
)
def test_registering_the_same_again_mends_an_evaluation_that_cannot_be_read(
    tracking: Tracking,
    evaluation_of: Build,
    register_as: RegisterAs,
    file: str,
    load: Callable[[Tracking, ModelVersion], Evaluation | None],
    text: str | None,
) -> None:
    register_as("a", evaluation_of("110"), evaluation_of("100", "sft"))
    version = find_version(tracking, "agent", 1)
    wanted = load(tracking, version)
    (stored,) = tracking.root.glob(f"mlruns/**/versions/1/{file}")
    stored.unlink() if text is None else stored.write_text(text)
    with pytest.raises(DataError, match="register it again") as caught:
        load(tracking, version)
    assert caught.value.exit_code == 2
    assert len(str(caught.value)) < 500
    measured_anew = evaluation_of("111" if file == "evaluation.json" else "110")
    assert register_as("a", measured_anew, evaluation_of("100", "sft")) == 1
    assert load(tracking, find_version(tracking, "agent", 1)) == (
        measured_anew if file == "evaluation.json" else wanted
    )


@pytest.mark.parametrize(
    ("file", "load"), [("evaluation.json", load_evaluation), ("baseline_evaluation.json", load_baseline)]
)
@pytest.mark.parametrize(
    ("written", "instead"),
    [('"t2": 0.0', '"t2": 1.0'), ('"broken": 0.0', '"broken": 0.5'), ('"max_calls": 8', '"max_calls": 7')],
)
def test_an_evaluation_that_was_changed_since_it_was_registered_is_no_evidence(
    tracking: Tracking,
    evaluation_of: Build,
    register_as: RegisterAs,
    file: str,
    load: Callable[[Tracking, ModelVersion], Evaluation | None],
    written: str,
    instead: str,
) -> None:
    """Each is a whole evaluation with one number that nobody measured; registering again restores the measured one."""
    register_as("a", evaluation_of("110"), evaluation_of("100", "sft"))
    version = find_version(tracking, "agent", 1)
    wanted = load(tracking, version)
    (stored,) = tracking.root.glob(f"mlruns/**/versions/1/{file}")
    stored.write_text(stored.read_text().replace(written, instead))
    with pytest.raises(DataError, match=r"changed since\n.*register it again"):
        load(tracking, version)
    assert register_as("a", evaluation_of("110"), evaluation_of("100", "sft")) == 1
    assert load(tracking, find_version(tracking, "agent", 1)) == wanted


def test_what_mlflow_no_longer_has_is_registered_anew(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs
) -> None:
    register_as("a", evaluation_of("110"))
    tracking.client.delete_logged_model(find_version(tracking, "agent", 1).source.removeprefix("models:/"))
    with pytest.raises(ModelError, match="no files, but version 1 was registered as"):
        load_registered(tracking, "agent", 1)
    assert register_as("a", evaluation_of("110")) == 2
    assert load_registered(tracking, "agent", "candidate").is_dir()


def test_a_checkout_that_was_moved_before_its_first_artifact_does_not_bring_the_old_folder_back(
    empty_database: Path, evaluation_of: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    shutil.copy(empty_database, old)
    with Tracking(None, "test", root=old).stage("sft"):
        pass
    old.rename(new)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    _artifact_repos_cache.clear()
    (new / "note.txt").write_text("x")
    with Tracking(None, "test", root=new).stage("report") as run:
        run.artifact(new / "note.txt")
    assert list(new.glob("mlruns/*/artifacts/note.txt"))
    assert not old.exists()


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_artifacts_are_found_where_the_checkout_was_moved_to(
    empty_database: Path, evaluation_of: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    old, new = tmp_path / "old", tmp_path / "new place"
    old.mkdir()
    shutil.copy(empty_database, old)
    there = Tracking(None, "test", root=old)
    model, evaluation = tmp_path / "model", evaluation_of("110")
    model.mkdir()
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        (model / file).write_text("a")

    def register_in(tracking: Tracking) -> int:
        with tracking.stage("register") as run:
            return register(tracking, run, "agent", model, evaluation, {}, baseline=nothing_solved(evaluation)).version

    assert register_in(there) == 1
    there.client.set_registered_model_alias("agent", "champion", "1")
    if how == "moved":
        old.rename(new)
    else:
        shutil.copytree(old, new)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # MLflow sets it and remembers places; this stands for another process
    _artifact_repos_cache.clear()
    here = Tracking(None, "test", root=new)
    assert load_registered(here, "agent").is_relative_to(new)
    assert load_evaluation(here, find_version(here, "agent", "champion")) == evaluation
    assert register_in(here) == 1
    evaluation = evaluation_of("111")
    assert register_in(here) == 2
    assert load_registered(here, "agent", 2).is_relative_to(new)
    assert old.exists() == (how == "copied")
    assert not list(old.glob("mlruns/*/artifacts/versions/2"))


def test_places_that_are_not_ours_stay(tracking: Tracking, tmp_path: Path) -> None:
    """
    place                             afterwards
    MLflow's own, a store, /x/other   the same
    …/shared/mlruns, which exists     the same: nothing that is known to lie there lies here
    /old/mlruns, and /old is gone     here
    /old/mlruns2, a run's             the same: it only begins like a place that moved
    """
    (tmp_path / "shared/mlruns").mkdir(parents=True)
    shared = (tmp_path / "shared/mlruns").as_uri()
    places = ["mlflow-artifacts:/7", "s3://bucket/mlruns", "file:///x/other", shared, "file:///old/mlruns"]
    experiments = [tracking.client.create_experiment(str(i), artifact_location=p) for i, p in enumerate(places)]
    runs = [tracking.client.create_run(experiment).info.run_id for experiment in experiments]
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("UPDATE runs SET artifact_uri = 'file:///old/mlruns2/a' WHERE run_uuid = ?", (runs[-1],))
    (tmp_path / "mlruns").mkdir()
    follow_artifacts(tmp_path / "mlflow.db")
    found = [tracking.client.get_experiment(experiment).artifact_location for experiment in experiments]
    assert found == [*places[:-1], (tmp_path / "mlruns").as_uri()]
    assert tracking.client.get_run(runs[-1]).info.artifact_uri == "file:///old/mlruns2/a"


@pytest.mark.parametrize(
    "name",
    [
        "acme/tools",
        "team's tools",
        "a:b",
        'a"b',
        "a?b",
        "a%20b",
        " a",
        "a ",
        "..",
        ".",
        "",
        "a\nb",
        "x" * 251,
        "a`b",
        "a@b",
    ],
)
def test_a_name_that_mlflow_cannot_hold_everywhere_is_refused_before_anything_is_written(
    tracking: Tracking, evaluation_of: Build, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InputError, match="not the name of a registered model"), tracking.stage("register") as run:
        register(tracking, run, name, tmp_path, evaluation_of("1"), {}, baseline=evaluation_of("0"))
    with pytest.raises(InputError, match="not the name of a registered model"):
        find_version(tracking, name, "champion")


@pytest.mark.parametrize("name", ["team tools", "v1.2_b-", "1", "модель", "x" * 250])
def test_a_name_of_letters_digits_and_what_joins_them_works_throughout(
    tracking: Tracking, evaluation_of: Build, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / file).write_text("a")
    for _ in range(2):
        with tracking.stage("register") as run:
            made = register(tracking, run, name, folder, evaluation_of("1"), {}, baseline=evaluation_of("0"))
    assert (made.version, made.is_new) == (1, False)
    assert load_registered(tracking, name, "candidate").is_dir()
    assert Path(mlflow.artifacts.download_artifacts(f"models:/{name}@candidate", tracking_uri=tracking.uri)).is_dir()


def test_a_version_says_what_it_is_on_mlflows_pages(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs
) -> None:
    register_as("a", evaluation_of("1110", "ppo2"), evaluation_of("1000", "sft"))
    version = find_version(tracking, "agent", "candidate")
    assert version.description == (
        "ppo2: pass rate 75.0%, finish rate 100.0%, +50.0% against sft; 4 test tasks of the world mini"
    )
    model = tracking.client.get_logged_model(version.source.removeprefix("models:/"))
    assert {metric.key: metric.value for metric in model.metrics or []} == {
        "pass_rate": 0.75,
        "finish_rate": 1.0,
        "pass_rate_difference": 0.5,
        "grounded": 0.0,
        "grounded_difference": 0.0,
    }


def test_a_version_without_verdicts_says_how_many_answers_are_grounded(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs
) -> None:
    register_as("a", evaluation_of("----", "ppo2", grounded="1110"), evaluation_of("----", "sft", grounded="1000"))
    assert find_version(tracking, "agent", "candidate").description == (
        "ppo2: grounded answers 75.0%, finish rate 100.0%, +50.0% against sft; "
        "4 test tasks of the world mini, of which 0 have a verdict"
    )


def test_a_version_may_be_compared_with_nothing(tracking: Tracking, evaluation_of: Build, tmp_path: Path) -> None:
    """Registered with a baseline, without one, and with one again: the last registration counts."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / file).write_text("a")
    for baseline in (evaluation_of("1000", "sft"), None, evaluation_of("1100", "sft")):
        with tracking.stage("register") as run:
            made = register(tracking, run, "agent", folder, evaluation_of("1110"), {}, baseline=baseline)
        version = find_version(tracking, "agent", "candidate")
        assert made.version == 1
        assert load_baseline(tracking, version) == baseline
        assert ("against sft" in version.description) == (baseline is not None)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_stored_files_have_the_mode_of_any_new_file(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs, tmp_path: Path, mask: int, mode: int
) -> None:
    register_as("a", evaluation_of("1"))
    private = tmp_path / "model-a/model.safetensors"
    private.write_text("b")
    private.chmod(0o600)
    before = os.umask(mask)
    try:
        with tracking.stage("register") as run:
            register(tracking, run, "agent", private.parent, evaluation_of("1"), {}, baseline=evaluation_of("0"))
    finally:
        os.umask(before)
    folder = load_registered(tracking, "agent", 2).parent
    assert {file.stat().st_mode & 0o777 for file in folder.rglob("*") if file.is_file()} == {mode}
    assert private.stat().st_mode & 0o777 == 0o600, "the evaluated model itself is left as it is"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"adapter_config.json"}, "is an adapter"),
        ({"config.json", "tokenizer.json"}, "has no weights"),
        ({"model.safetensors"}, "has no configuration, no tokenizer"),
    ],
)
def test_a_folder_that_is_no_plain_model_is_refused(
    tracking: Tracking, evaluation_of: Build, tmp_path: Path, files: set[str], found: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in files:
        (folder / file).touch()
    with pytest.raises(ModelError, match=found), tracking.stage("register") as run:
        register(tracking, run, "agent", folder, evaluation_of("1"), {}, baseline=evaluation_of("0", "sft"))


PARAMS = """
rounds: {r1: {from: sft}}
arms:
  sft: {method: sft, from: base, data: [demonstrations]}
  ppo: {method: step_ppo, from: sft, data: [r1]}
"""


def tiny_model(folder: Path, seed: int) -> None:
    """A whole plain model; its weights readable by their owner alone, as safetensors leaves them."""
    from steptool.policies.tiny_model import model, tokenizer

    model(seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_mlflows_own_flavours_load_the_champion_as_it_was_evaluated(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "tiny"
    tiny_model(folder, 17)
    evaluation = evaluation_of("1")
    with tracking.stage("register") as run:
        version = register(tracking, run, "agent", folder, evaluation, {}, baseline=nothing_solved(evaluation))
    tracking.client.set_registered_model_alias("agent", "champion", str(version.version))
    evaluated = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    pipeline = mlflow.transformers.load_model("models:/agent@champion")
    assert pipeline.model.state_dict().keys() == evaluated.keys()
    for name, tensor in pipeline.model.state_dict().items():
        assert torch.equal(tensor.cpu(), evaluated[name]), name
        assert tensor.dtype == evaluated[name].dtype
    assert mlflow.pyfunc.load_model("models:/agent@champion").predict(["hello"])
    stored = load_registered(tracking, "agent")  # MLflow writes a file beside the model when it loads one
    assert file_hash(stored) == version.model_hash == file_hash(folder)
    requirements = (stored.parent / "requirements.txt").read_text()
    assert "transformers==" in requirements
    assert "torchvision" not in requirements
    assert "+cpu" not in requirements


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_printed_fix_of_a_damaged_version_mends_it(
    tracking: Tracking, evaluation_of: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`steptool register`, and the command exactly as it is printed, for each thing that can be lost."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    tiny_model(tmp_path / "models/ppo", 17)
    policy = Revision(name="models/ppo", revision=file_hash(tmp_path / "models/ppo"))
    for name, verdicts in (("ppo", "1110"), ("sft", "1000")):
        evaluation = evaluation_of(verdicts, name).model_copy(update={"policy": policy})
        write_json(tmp_path / f"metrics/evaluation/{name}.json", evaluation.model_dump(mode="json"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")} | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }

    def run(command: str) -> None:
        done = subprocess.run(command.split(), env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    run("steptool register")
    version = find_version(tracking, "steptool", 1)
    losses: list[tuple[str, Callable[[], object]]] = [
        ("mlruns/models/*/artifacts/model/config.json", lambda: load_registered(tracking, "steptool", 1)),
        ("mlruns/*/artifacts/versions/1/evaluation.json", lambda: load_evaluation(tracking, version)),
        ("mlruns/*/artifacts/versions/1/baseline_evaluation.json", lambda: load_baseline(tracking, version)),
    ]
    for place, load in losses:
        (file,) = tmp_path.glob(place)
        with file.open("a") as stream:
            stream.write("x")
        with pytest.raises(InputError) as caught:
            load()
        fix = re.search(r"`(.*)`", str(caught.value.fix))
        assert fix
        run(fix[1])
        assert load()
    tracking.client.delete_registered_model_alias("steptool", "candidate")
    with pytest.raises(ModelError, match="no version 'candidate'") as caught:
        find_version(tracking, "steptool", "candidate")
    run(re.findall(r"`(.*?)`", str(caught.value.fix))[0])
    assert find_version(tracking, "steptool", "candidate").version == 1


LOAD = """
import json, sys
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM
from steptool.registry.models import load_registered
from steptool.tracking.run import Tracking

folder = load_registered(Tracking(None, "test", root=Path(sys.argv[1])), "agent", "candidate", out=Path("fetched"))
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
print(json.dumps(model(torch.arange(12)[None]).logits[0].tolist()))
"""


@pytest.mark.slow
def test_an_adapted_model_gives_the_same_logits_in_a_fresh_process(
    tracking: Tracking, evaluation_of: Build, tmp_path: Path
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(17)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape)).eval()
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        before = base(tokens).logits
        adapted = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
        trained = adapted.eval()(tokens).logits[0]
    assert (trained - before).abs().max() > 1e-3  # the adapter does something
    folder = tmp_path / "merged"
    adapted.merge_and_unload().save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    with tracking.stage("register") as run:
        register(tracking, run, "agent", folder, evaluation_of("1"), {}, baseline=evaluation_of("0", "sft"))

    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    fresh = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = torch.tensor(json.loads(fresh.stdout.splitlines()[-1]))
    assert (loaded - trained).abs().max() <= 1e-6

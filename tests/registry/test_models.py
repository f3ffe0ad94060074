"""A registered model is, bit for bit, the one that was evaluated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from steptool.errors import InputError, ModelError, TrackingError
from steptool.evaluation.metrics import Evaluation
from steptool.registry.models import find_version, load_evaluation, load_registered, register
from steptool.registry.tracking import Tracking

Build = Callable[..., Evaluation]
RegisterAs = Callable[[str, Evaluation], int]


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
        register(tracking, run, "agent", folder, evaluation_of("1"), {}, start=evaluation_of("0", "sft"))


LOAD = """
import json, sys
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM
from steptool.registry.models import load_registered
from steptool.registry.tracking import Tracking

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
        register(tracking, run, "agent", folder, evaluation_of("1"), {}, start=evaluation_of("0", "sft"))

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

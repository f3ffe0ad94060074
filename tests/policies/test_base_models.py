"""The base model: one layout whatever it comes from, the same bytes each time, and each missing part by its name."""

from __future__ import annotations

import importlib.util
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from steptool.core.errors import ModelError, StorageError
from steptool.core.storage import file_hash
from steptool.policies import base_models as base_model
from steptool.policies import tiny_model
from steptool.policies.base_models import base_tokenizer, check_model_folder, fetch_base, load_tokenizer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    fetch_base("tiny-random", folder)
    return folder


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


# tiny-random


def test_the_tiny_model_is_the_same_bytes_for_a_seed_and_others_for_another(tiny: Path, tmp_path: Path) -> None:
    torch.rand(3)  # the caller's random state must not matter
    fetch_base("tiny-random", tmp_path / "same", seed=0)
    fetch_base("tiny-random", tmp_path / "other", seed=1)
    assert file_hash(tmp_path / "same") == file_hash(tiny)
    assert file_hash(tmp_path / "other") != file_hash(tiny)


def test_drawing_the_tiny_model_leaves_the_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    tiny_model.model(seed=0)
    assert torch.equal(torch.rand(2), expected)


def test_the_tiny_model_loads_and_predicts_its_vocabulary(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    ids = tokenizer("Which flight?", return_tensors="pt")["input_ids"]
    assert model.dtype == torch.bfloat16
    assert model(ids).logits.shape == (1, ids.shape[1], len(tokenizer))


def test_the_tiny_chat_template_is_chatml(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])[0] == "<|im_start|>"
    assert tokenizer.eos_token == "<|im_end|>"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_tiny_tokenizer_gives_every_text_back(text: str) -> None:
    tokenizer = tiny_model.tokenizer()
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_a_folder_without_a_tokenizer_is_refused(tiny: Path, tmp_path: Path) -> None:
    assert load_tokenizer(tiny).eos_token == "<|im_end|>"
    with pytest.raises(ModelError, match=r"no tokenizer"):
        load_tokenizer(tmp_path)


# A folder


def test_a_folder_is_copied_without_what_a_model_does_not_need(copy: Path, tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "modeling_custom.py", "model.onnx", "README.md"):
        (copy / name).write_bytes(b"x")
    fetch_base(str(copy), tmp_path / "out")
    kept = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= kept
    assert not kept & {"pytorch_model.bin", "modeling_custom.py", "model.onnx", "README.md"}
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (copy / "model.safetensors").read_bytes()


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_architectures(path: Path) -> None:
    config = json.loads(path.read_text())
    del config["architectures"]
    path.write_text(json.dumps(config))


def as_pickle(path: Path) -> None:
    path.rename(path.with_name("pytorch_model.bin"))


def as_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


@pytest.mark.parametrize(
    ("part", "damage", "says"),
    [
        ("config.json", Path.unlink, "no config.json"),
        ("config.json", cut_in_half, r"config\.json:\d+: not JSON"),
        ("config.json", without_architectures, "names no `architectures`"),
        ("model.safetensors", Path.unlink, r"no \*\.safetensors"),
        ("model.safetensors", as_pickle, "weights are pickled"),
        ("model.safetensors", cut_in_half, r"model\.safetensors: not a whole safetensors file"),
        ("model.safetensors", as_pointer, "git lfs pull"),
        ("tokenizer.json", Path.unlink, "no tokenizer"),
    ],
)
def test_a_damaged_model_is_refused_by_the_part(
    copy: Path, tmp_path: Path, part: str, damage: Callable[[Path], None], says: str
) -> None:
    check_model_folder(copy)
    damage(copy / part)
    with pytest.raises(ModelError, match=says):
        fetch_base(str(copy), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_shard_is_named(copy: Path) -> None:
    shards = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(shards))
    (copy / "model.safetensors").rename(copy / "model-1.safetensors")
    with pytest.raises(ModelError, match=r"1 of 2 shards are missing, the first is model-2\.safetensors"):
        check_model_folder(copy)


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file of this process may grow over 50 kB; the tiny model's weights have 216."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_while_saving_weights_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"/out: cannot write the weights: .*File too large.*\n.*free some space"):
        fetch_base("tiny-random", tmp_path / "out")


# The hub, out of reach


def test_a_name_that_is_nothing_says_what_can_be_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"neither a folder nor a hub id\n.*smollm2, tiny-random, a model folder"):
        fetch_base("models/does/not/exist", tmp_path / "out")


def test_a_hub_model_that_is_not_here_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ModelError, match=r"Qwen/Qwen2\.5-7B-Instruct: not in the hub's cache.*\n.*HF_HUB_OFFLINE=0"):
        fetch_base("Qwen/Qwen2.5-7B-Instruct", tmp_path / "out")


@pytest.mark.parametrize("base", ["tiny-random", pytest.param("smollm2", marks=pytest.mark.slow), "a folder"])
def test_the_tokenizer_alone_is_that_of_the_model_folder(base: str, tiny: Path, tmp_path: Path) -> None:
    wanted = str(tiny) if base == "a folder" else base
    alone = base_tokenizer(wanted)
    assert list(tmp_path.iterdir()) == []
    fetch_base(wanted, tmp_path / "out")
    whole = load_tokenizer(tmp_path / "out")
    text = "<|im_start|>user\nWhere is order a-1? é 漢<|im_end|>"
    assert alone.encode(text) == whole.encode(text)
    assert (alone.chat_template, alone.all_special_ids) == (whole.chat_template, whole.all_special_ids)


# smollm2


def test_a_missing_model_package_says_make_setup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="make setup"):
        base_model.fetch_base("smollm2", tmp_path / "out")


@pytest.mark.slow
def test_smollm2_answers_and_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    fetch_base("smollm2", tmp_path / "one")
    fetch_base("smollm2", tmp_path / "two")
    assert file_hash(tmp_path / "one") == file_hash(tmp_path / "two")
    check_model_folder(tmp_path / "one")

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "one")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "one", dtype=torch.float32)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    reply = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(reply[0])

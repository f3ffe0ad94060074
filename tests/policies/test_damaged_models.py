"""A model that is not what it seems is refused by whoever reads it, in one sentence that names the part.

damage    one NaN | a tensor that lacks, is left over, is renamed, has another shape | an absurd config | …
reader    base (copies it) | sft | train | sample, evaluate and register (plain weights)
"""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from steptool.core.errors import ModelError, StepToolError
from steptool.methods.sft import Example, Sft, fine_tune
from steptool.policies.base_models import fetch_base
from steptool.policies.folder import merge_adapter, plain_weights, resolve_policy
from steptool.policies.model_folder import check_model_folder, load_model, load_tokenizer, weights_hash
from steptool.training.model import AdapterSettings, PolicyWithValue

PARAMS = AdapterSettings(lora_first_layer=1, lora_rank=2, lora_alpha=4)
IDS, OWN = [11, 12, 13, 14, 15], [False, False, True, True, True]
WEIGHTS = "model.safetensors"
NORM, DOWN = "model.norm.weight", "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    fetch_base("tiny-random", folder)
    return folder


@pytest.fixture
def model(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """models/sft of a working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny, "models/sft")
    return Path("models/sft")


def base(folder: Path) -> None:
    fetch_base(str(folder), Path("models/base"))


def sft(folder: Path) -> None:
    settings = Sft.Config(frozen_layers=1, learning_rate=1e-3)
    out = Path("models/out")
    out.mkdir()
    fine_tune(
        folder, out, [Example(IDS, OWN)], settings, dtype="float32", seed=0, on_metrics=lambda step, metrics: None
    )


def train(folder: Path) -> None:
    PolicyWithValue.load(folder, PARAMS, device="cpu")


def sample(folder: Path) -> None:
    with plain_weights(folder, "float32", Path(".steptool/merged")):
        pass


READERS = (base, sft, train, sample)


def tensors(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def holding(name: str, value: float, dtype: torch.dtype = torch.bfloat16) -> Callable[[Path], None]:
    def change(found: dict[str, Tensor]) -> dict[str, Tensor]:
        found[name] = found[name].to(dtype)
        found[name].view(-1)[-1] = value
        return found

    return tensors(change)


def config(**values: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return damage


def file(name: str, text: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_text(text)

    return damage


def as_folder(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


def as_pipe(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return damage


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "NaN": (holding(DOWN, float("nan")), f"{DOWN} holds NaN"),
    "a download that was never filled in": (
        tensors(lambda found: {name: torch.zeros_like(tensor) for name, tensor in found.items()}),
        "all its matrices hold only zeros",
    ),
    "infinity": (holding(NORM, float("inf")), f"{NORM} holds infinity"),
    "minus infinity": (holding(NORM, float("-inf"), torch.float32), f"{NORM} holds infinity"),
    "NaN of half precision": (holding(DOWN, float("nan"), torch.float16), f"{DOWN} holds NaN"),
    "NaN of 8 bits": (holding(DOWN, float("nan"), torch.float8_e4m3fn), f"{DOWN} holds NaN"),
    "a tensor lacks": (tensors(lambda t: {k: v for k, v in t.items() if k != NORM}), f"lacks the tensors {NORM}"),
    "a tensor is left over": (tensors(lambda t: t | {"extra": torch.ones(2)}), "no place for the tensors extra"),
    "all names changed": (tensors(lambda t: {f"x.{k}": v for k, v in t.items()}), "lacks the tensors .* and 18 more"),
    "another shape": (tensors(lambda t: t | {DOWN: t[DOWN].T.contiguous()}), rf"another shape of the tensors {DOWN}"),
    "a width that differs": (config(intermediate_size=64), "another shape of the tensors .* and 3 more"),
    "a layer too many": (config(num_hidden_layers=3), r"lacks the tensors model\.layers\.2"),
    "a layer too few": (config(num_hidden_layers=1), r"no place for the tensors model\.layers\.1"),
    "a billion layers": (config(num_hidden_layers=10**9), "num_hidden_layers: 1000000000"),
    "a billion labels": (config(num_labels=10**9), "num_labels: 1000000000"),
    "a huge vocabulary": (config(vocab_size=10**12), "describes .* weights, the safetensors hold"),
    "a negative size": (config(hidden_size=-1), "Transformers cannot load it"),
    "no head": (config(num_attention_heads=0), "Transformers cannot load it"),
    "an unknown type": (config(model_type="nobody"), "Transformers cannot load it"),
    "architectures of another type": (config(architectures="LlamaForCausalLM"), "names no `architectures`"),
    "code of its own": (config(model_type="evil", auto_map={"AutoConfig": "evil.Config"}), "Python code of its own"),
    "a list": (file("config.json", "[]"), "config.json: not a JSON object"),
    "nested too deep": (file("config.json", "[" * 200_000), "config.json: cannot be read"),
    "a long integer": (file("config.json", '{"a": ' + "1" * 4301 + "}"), "config.json: cannot be read"),
    "config is a folder": (as_folder("config.json"), "config.json: not a file"),
    "config is a pipe": (as_pipe("config.json"), "config.json: not a file"),
    "weights are a folder": (as_folder(WEIGHTS), "not a whole safetensors file"),
    "weights are a pipe": (as_pipe(WEIGHTS), "not a whole safetensors file"),
    "an index of another type": (file(f"{WEIGHTS}.index.json", "[]"), "not a JSON object"),
    "a shard that leads out": (
        file(f"{WEIGHTS}.index.json", json.dumps({"weight_map": {"a": "../tiny/x.safetensors"}})),
        "1 of 1 shards are missing",
    ),
    "an adapter's config": (
        file("adapter_config.json", json.dumps({"base_model_name_or_path": "owner/evil"})),
        "is an adapter",
    ),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_model_is_refused_by_every_reader(model: Path, damage: str, reader: Callable[[Path], None]) -> None:
    change, found = DAMAGE[damage]
    change(model)
    with pytest.raises(ModelError, match=found) as caught:
        reader(model)
    assert caught.value.exit_code == 2
    assert caught.value.fix
    assert "\n" not in caught.value.found
    assert not any(Path("models/out").glob("*")), "nothing may be written"


@pytest.mark.parametrize("reader", [base, sft, sample])
def test_broken_tokenizer_is_refused_by_whoever_uses_it(model: Path, reader: Callable[[Path], None]) -> None:
    file("tokenizer.json", '{"model": 5}')(model)
    with pytest.raises(ModelError, match="its tokenizer cannot be read"):
        reader(model)


@pytest.mark.parametrize("reader", READERS)
def test_sound_model_is_read_by_every_reader(model: Path, reader: Callable[[Path], None]) -> None:
    reader(model)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("known", [True, False])
def test_code_of_a_model_never_runs(
    model: Path, reader: Callable[[Path], None], known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """config.json and tokenizer_config.json name evil.py, and the user's terminal would answer yes."""
    parts = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.T", "evil.T"]}
    for name in ("config.json", "tokenizer_config.json"):
        values = json.loads((model / name).read_text()) | {"auto_map": parts}
        values |= {} if known else {"model_type": "evil", "tokenizer_class": "Evil"}
        (model / name).write_text(json.dumps(values))
    (model / "evil.py").write_text("import pathlib\npathlib.Path('evil ran').touch()\n")
    read, write = os.pipe()
    os.write(write, b"y\n" * 9)
    os.close(write)
    with os.fdopen(read) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        try:
            reader(model)
        except ModelError:
            assert not known
        else:
            assert known
    assert not Path("evil ran").exists()


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bits_in_a_header_are_refused_without_a_traceback(model: Path, seed: int) -> None:
    random_number = random.Random(seed)
    raw = bytearray((model / WEIGHTS).read_bytes())
    for _ in range(random_number.choice([1, 1, 2, 5])):
        raw[random_number.randrange(8 + int.from_bytes(raw[:8], "little"))] ^= 1 << random_number.randrange(8)
    (model / WEIGHTS).write_bytes(raw)
    with suppress(ModelError):
        check_model_folder(model)
        load_model(model, dtype="auto")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("seed", range(10))
def test_flipped_bits_in_a_tokenizer_are_refused_without_a_traceback(model: Path, name: str, seed: int) -> None:
    random_number = random.Random(seed)
    raw = bytearray((model / name).read_bytes())
    for _ in range(3):
        raw[random_number.randrange(len(raw))] ^= 1 << random_number.randrange(8)
    (model / name).write_bytes(raw)
    with suppress(ModelError):
        load_tokenizer(model)


@pytest.mark.parametrize("name", ["a" * 9000, "a\0b", "/" * 300 + "x", "models/nobody", "two words"])
def test_base_that_is_no_path_is_refused(model: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError) as caught:
        fetch_base(name, Path("models/base"))
    assert caught.value.fix
    assert not Path("models/base").exists()


def test_small_file_that_is_a_link_out_of_the_model_is_not_copied(model: Path) -> None:
    Path("secret").write_text("{}")
    (model / "vocab.json").symlink_to(Path("secret").resolve())
    with pytest.raises(ModelError, match=r"vocab\.json: is a link to .*secret, outside the model's folder"):
        base(model)
    assert not Path("models/base").exists()


def test_links_of_the_hubs_cache_and_of_large_weights_are_followed(model: Path) -> None:
    """snapshots/1/config.json -> ../../blobs/config.json, and the weights on another disk."""
    snapshot, blobs = Path("hub/snapshots/1"), Path("hub/blobs")
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    for path in model.iterdir():
        place = Path("disk.safetensors") if path.name == WEIGHTS else blobs / path.name
        path.rename(place)
        (snapshot / path.name).symlink_to(place.resolve())
    base(snapshot)
    check_model_folder(Path("models/base"))
    assert not any(path.is_symlink() for path in Path("models/base").iterdir())


def test_files_have_the_permissions_that_the_umask_gives(tiny: Path, model: Path) -> None:
    before = os.umask(0o022)
    try:
        fetch_base("tiny-random", Path("drawn"))
        sft(model)
        adapter(model)
        merge_adapter(model, Path("models/r1"), Path("merged"))
        os.umask(0o027)
        fetch_base("tiny-random", Path("shy"))
    finally:
        os.umask(before)
    for folder in ("drawn", "models/out", "models/r1", "merged"):
        assert {stat.S_IMODE(path.stat().st_mode) for path in Path(folder).iterdir()} == {0o644}, folder
    assert {stat.S_IMODE(path.stat().st_mode) for path in Path("shy").iterdir()} == {0o640}


# What training writes


def test_loss_that_is_not_finite_ends_sft(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steptool.training.decoder.require_close", lambda *arguments: None)
    config(rms_norm_eps=float("nan"))(model)
    with pytest.raises(StepToolError, match=r"update 1: the loss is not finite") as caught:
        sft(model)
    assert "methods.sft.learning_rate" in str(caught.value.fix)
    assert not any(Path("models/out").glob("*.safetensors"))


def test_config_that_makes_every_number_nan_is_refused_before_training(model: Path) -> None:
    config(rms_norm_eps=float("nan"))(model)
    for reader in (sft, train):
        with pytest.raises(ModelError, match="differ from those of Transformers' own forward pass by up to nan"):
            reader(model)


def test_weights_that_are_not_finite_are_not_written_by_sft(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(trainer: Any) -> None:
        with torch.no_grad():
            trainer.model.model.norm.weight[3] = float("inf")

    monkeypatch.setattr("steptool.methods.sft.ActionLossTrainer.train", spoil)
    with pytest.raises(StepToolError, match=r"the tensor model\.norm\.weight holds infinity") as caught:
        sft(model)
    assert caught.value.exit_code == 1
    assert not any(Path("models/out").iterdir())


@pytest.mark.parametrize("part", ["policy", "value"])
def test_adapter_that_is_not_finite_is_not_written(model: Path, part: str) -> None:
    policy = PolicyWithValue.load(model, PARAMS, device="cpu")
    parameter = next(p for n, p in policy.trainable().items() if n.startswith(part))
    with torch.no_grad():
        parameter.view(-1)[0] = float("nan")
    Path("models/r1").mkdir()
    with pytest.raises(StepToolError, match=r"holds NaN"):
        policy.save(Path("models/r1"))
    assert not (Path("models/r1") / "policy.json").exists()


def test_tokenizer_of_a_larger_model_is_refused_before_training(model: Path) -> None:
    with pytest.raises(ModelError, match="its tokenizer writes token 512, the model embeds 512 tokens"):
        fine_tune(
            model,
            Path("out"),
            [Example([1, 512, 3], [False, True, True])],
            Sft.Config(frozen_layers=1),
            dtype="float32",
            seed=0,
            on_metrics=lambda step, metrics: None,
        )


# An adapter and its base


def adapter(model: Path, name: str = "models/r1") -> Path:
    folder = Path(name)
    folder.mkdir(parents=True)
    PolicyWithValue.load(model, PARAMS, device="cpu").save(folder)
    return folder


def read(folder: Path) -> Iterator[Callable[[], object]]:
    yield lambda: PolicyWithValue.load(folder, PARAMS, device="cpu")
    yield lambda: sample(folder)


def test_adapter_on_another_base_of_the_same_shape_is_refused_with_a_fix_that_works(model: Path) -> None:
    folder = adapter(model)
    fetch_base("tiny-random", model, seed=1)
    for reader in read(folder):
        with pytest.raises(ModelError, match=r"trained on other weights than models/sft holds now") as caught:
            reader()
    line = str(caught.value.fix).partition("write ")[2].partition(" into that file")[0]
    (folder / "policy.json").write_text(line)
    for reader in read(folder):
        reader()


def test_adapter_that_names_no_hash_is_refused_with_a_fix_that_works(model: Path) -> None:
    folder = adapter(model)
    (folder / "policy.json").write_text('{"base": "models/sft"}')
    with pytest.raises(ModelError, match="does not say by a hash which weights") as caught:
        resolve_policy(folder)
    line = str(caught.value.fix).partition("write ")[2].partition(" into that file")[0]
    assert json.loads(line) == {"base": "models/sft", "weights": weights_hash(model)}
    (folder / "policy.json").write_text(line)
    assert resolve_policy(folder).adapter == folder


ADAPTER = "adapter_model.safetensors"


def in_file(name: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Path], None]:
    return lambda folder: save_file(change(load_file(folder / name)), folder / name)


def first(found: dict[str, Tensor], change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    name = min(found)
    return found | {name: change(found[name]).contiguous()}


def settings(**values: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return damage


def pickled(folder: Path) -> None:
    (folder / ADAPTER).rename(folder / "adapter_model.bin")


ADAPTERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "NaN": (in_file(ADAPTER, lambda t: first(t, lambda x: x * float("nan"))), "holds NaN"),
    "NaN in the value head": (
        in_file("value_head.safetensors", lambda t: first(t, lambda x: x * float("nan"))),
        "holds NaN",
    ),
    "a tensor lacks": (in_file(ADAPTER, lambda t: {k: v for k, v in t.items() if k != min(t)}), "the file lacks"),
    "a tensor is left over": (in_file(ADAPTER, lambda t: t | {"x": torch.ones(1)}), "no place for x"),
    "all names changed": (in_file(ADAPTER, lambda t: {f"x.{k}": v for k, v in t.items()}), "the file lacks"),
    "another shape": (in_file(ADAPTER, lambda t: first(t, lambda x: x[:, :1])), "the model needs"),
    "integers": (in_file(ADAPTER, lambda t: first(t, lambda x: x.int())), "holds torch.int32"),
    "pickled": (pickled, "no adapter_m"),
    "another kind": (settings(peft_type="PROMPT_TUNING"), "peft_type is PROMPT_TUNING"),
    "code to run at the start": (settings(init_lora_weights="pissa"), "init_lora_weights is pissa"),
    "a pattern for names": (settings(target_modules="(a+)+$"), "target_modules .* of another type"),
    "other ranks": (settings(rank_pattern={"q_proj": 9}), "rank_pattern is"),
    "weight decomposed": (settings(use_dora=True), "use_dora is True"),
    "modules beside it": (settings(modules_to_save=["lm_head"]), "modules_to_save is"),
    "no modules": (settings(target_modules=["nobody"]), "does not fit|the file lacks|no place"),
    "rank of text": (settings(r="2"), "of another type"),
    "base of another type": (file("policy.json", '{"base": 5}'), "names no base"),
    "base of 9,000 letters": (file("policy.json", json.dumps({"base": "a" * 9000})), "does not exist"),
    "base with a zero byte": (file("policy.json", json.dumps({"base": "a\0b"})), "does not exist"),
    "base that is itself": (file("policy.json", '{"base": "models/r1"}'), "no config.json"),
    "policy of another type": (file("policy.json", "[]"), "not a JSON object"),
}


@pytest.mark.parametrize("damage", ADAPTERS)
def test_damaged_adapter_is_refused_by_every_reader(model: Path, damage: str) -> None:
    folder = adapter(model)
    change, found = ADAPTERS[damage]
    change(folder)
    for number, reader in enumerate(read(folder)):
        if number == 0 and damage == "no modules":  # the trainer's targets are its own
            continue
        with pytest.raises(ModelError, match=found) as caught:
            reader()
        assert caught.value.exit_code == 2
        assert caught.value.fix
        assert "\n" not in caught.value.found


@pytest.mark.parametrize("path", ["models/r1/../r1", "models/r1/.", "models/../models/r1", "models/r1/sub/.."])
def test_merging_touches_nothing_but_a_folder_of_its_own(model: Path, path: str) -> None:
    folder = adapter(model)
    (folder / "sub").mkdir()
    kept = Path(".steptool/checkpoints/state")
    kept.parent.mkdir(parents=True)
    kept.write_text("of another training")
    for _ in range(2):
        with plain_weights(Path(path), "float32", Path(".steptool/merged")) as weights:
            assert weights == Path(".steptool/merged/r1")
    assert kept.exists()
    assert not list(Path(".steptool/merged").iterdir())


def test_merging_from_inside_a_policy_folder_touches_nothing_else(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = adapter(model)
    (folder / "policy.json").write_text(json.dumps({"base": str(model.resolve()), "weights": weights_hash(model)}))
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")
    kept = Path(".steptool/merged/other")
    kept.mkdir(parents=True)
    for path in ("..", "../."):
        with plain_weights(Path(path), "float32", Path(".steptool/merged")) as weights:
            assert weights.name == "r1"
        assert kept.exists()


def test_link_in_the_place_of_the_merged_weights_is_not_followed(model: Path) -> None:
    folder = adapter(model)
    other = Path("other")
    other.mkdir()
    (other / "kept").touch()
    Path(".steptool/merged").mkdir(parents=True)
    Path(".steptool/merged/r1").symlink_to(other.resolve())
    sample(folder)
    assert (other / "kept").exists()

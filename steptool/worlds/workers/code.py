"""A team's modules: where the tools and the checks are in them."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from steptool.core.errors import DataError, InputError
from steptool.core.plugins import load_module
from steptool.worlds.project.tasks import FIX
from steptool.worlds.project.toolbox import Called
from steptool.worlds.workers.tools import FunctionTool, public_functions

Judge = Callable[[str, list[Called], Any], Any]
"""A check of the project. It gets the answer, the calls, and the object whose methods the tools are (None where they
are functions), and returns True or False, or how far the task is solved, from 0 to 1."""


def module_file(text: str) -> str:
    if not re.fullmatch(r"(\w+/)*\w+\.py(:\w+)?", text):
        raise ValueError(f"write FILE.py or FILE.py:Class, a file in this folder, got {text[:80]!r}")
    return text


def checks_file(text: str) -> str:
    if text and ":" in module_file(text):
        raise ValueError(f"write FILE.py, a file in this folder, got {text[:80]!r}")
    return text


def names_of(module: str) -> tuple[str, str]:
    """Names of the module and of its class; an empty one where the functions are its own."""
    path, _, class_name = module.partition(":")
    return path.removesuffix(".py").replace("/", "."), class_name


class Code:
    """`tools` is FILE.py or FILE.py:Class, empty where the tools are elsewhere. `checks` are the names and places of
    the functions that are checks, no tools; they are found in `checks_file`, or beside the tools where it is empty.

    Raises InputError for a function that cannot be a tool, DataError for a check that is none; both name it.
    """

    def __init__(self, tools: str, checks_file: str, checks: Mapping[str, str]) -> None:
        self.home: ModuleType | type | None = None
        self.tools: dict[str, FunctionTool] = {}
        module = _loaded(tools) if tools else None
        judging = _loaded(checks_file) if checks_file else module
        if module is not None:
            self.home = _home(module, tools)
            self.tools = _tools(self.home, tools, without=checks if self.home is judging else ())
        self.judges: dict[str, Judge] = {}
        for name, where in checks.items():
            if judging is None:
                fix = "set world.checks to a file in which that function is"
                raise DataError(f"check: there is no function {name!r}", where=where, fix=fix)
            self.judges[name] = _judge(judging, name, where)

    @property
    def has_state(self) -> bool:
        return inspect.isclass(self.home)


def _loaded(module: str) -> ModuleType:
    name, _ = names_of(module)
    path = Path(module.partition(":")[0])
    if not path.is_file():
        raise InputError("no such file", where=str(path), fix="write it, or mend section `world` of params.yaml")
    loaded = load_module(name)
    if Path(loaded.__file__ or "").resolve() != path.resolve():
        raise InputError(
            f"Python knows another module {name}, {loaded.__file__}", where=str(path), fix="give the file another name"
        )
    return loaded


def _home(loaded: ModuleType, module: str) -> ModuleType | type:
    """Where the functions are found: the module, or its class."""
    _, class_name = names_of(module)
    if not class_name:
        return loaded
    home = getattr(loaded, class_name, None)
    if not inspect.isclass(home):
        raise InputError(f"has no class {class_name}", where=module, fix="mend world.module in params.yaml")
    return home


def _tools(home: ModuleType | type, module: str, without: Collection[str]) -> dict[str, FunctionTool]:
    _refuse_doubles(module)
    functions = {name: value for name, value in public_functions(home).items() if name not in without}
    if not functions:
        raise InputError("has no public function", where=module, fix="write one: each becomes a tool")
    return {name: FunctionTool(name, function, module) for name, function in functions.items()}


def _refuse_doubles(module: str) -> None:
    """Python takes the last of two functions of one name, and says nothing."""
    path, _, class_name = module.partition(":")
    body = ast.parse(Path(path).read_text(encoding="utf-8")).body
    if class_name:
        classes = [node for node in body if isinstance(node, ast.ClassDef) and node.name == class_name]
        body = [each for node in classes for each in node.body]
    seen: dict[str, int] = {}
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.decorator_list:
            continue  # `@overload` and `@name.setter` have the same name on purpose
        if node.name in seen:
            raise InputError(
                f"defines {node.name} here and in line {seen[node.name]}",
                where=f"{path}:{node.lineno}",
                fix="give each tool its own name",
            )
        seen[node.name] = node.lineno


def _judge(module: ModuleType, name: str, where: str) -> Judge:
    judge = getattr(module, name, None)
    if not inspect.isfunction(judge):
        raise DataError(f"check: {module.__name__} has no function {name!r}", where=where, fix=FIX)
    try:
        inspect.signature(judge).bind("answer", [], None)
    except TypeError as error:
        fix = f"write `def {name}(answer: str, calls: list, state) -> bool:`"
        raise DataError(f"check: {name} does not take answer, calls and state", where=where, fix=fix) from error
    return judge

"""The functions of a module, or the methods of a class of which each attempt gets an object."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic_core import to_json

from steptool.core.errors import DataError, InputError, WorldError, describe
from steptool.core.plugins import load_module
from steptool.core.types import Observation, Tool, ToolCall
from steptool.worlds.functions.thread import OwnThread, Raised
from steptool.worlds.functions.tools import FunctionTool, WrongArguments, public_functions
from steptool.worlds.project.session import failure
from steptool.worlds.project.tasks import FIX
from steptool.worlds.project.toolbox import Called

Judge = Callable[[str, list[Called], Any], Any]
"""A check of the project. It gets the answer, the calls, and the object whose methods the tools are (None where they
are functions), and returns True or False, or how far the task is solved, from 0 to 1."""


def module_file(text: str) -> str:
    if not re.fullmatch(r"(\w+/)*\w+\.py(:\w+)?", text):
        raise ValueError(f"write FILE.py or FILE.py:Class, a file in this folder, got {text[:80]!r}")
    return text


class FunctionsToolbox:
    """`module` is FILE.py or FILE.py:Class, `checks` the names and places of the functions that are checks, no tools.

    Raises InputError for a function that cannot be a tool, DataError for a check that is none; both name it.
    """

    def __init__(self, module: str, checks: Mapping[str, str]) -> None:
        loaded = _loaded(module)
        self._home = _home(loaded, module)
        self._judges = {name: _judge(loaded, name, where) for name, where in checks.items()}
        self._functions = _tools(self._home, module, without=checks)
        self.tools: Mapping[str, Tool] = {name: each.tool for name, each in self._functions.items()}

    def changes_state(self, name: str) -> bool:
        return not isinstance(self._home, ModuleType)

    def connect(self) -> FunctionsConnection:
        return FunctionsConnection(self._functions, self._judges, self._home)

    def close(self) -> None:
        """Nothing is shared."""


class FunctionsConnection:
    def __init__(
        self, functions: Mapping[str, FunctionTool], judges: Mapping[str, Judge], home: ModuleType | type
    ) -> None:
        self._functions, self._judges, self._home = functions, judges, home
        self._state: Any = None
        self._thread = OwnThread()

    async def call(self, call: ToolCall) -> Observation:
        try:
            arguments = self._functions[call.name].read(call.arguments)
        except WrongArguments as wrong:
            return failure("invalid_argument", str(wrong))
        try:
            text = await self._thread.run(lambda: getattr(self._found(), call.name)(**arguments), _as_text)
        except Raised as raised:
            if isinstance(raised.fault, WorldError):
                raise raised.fault from raised
            return failure("tool_error", describe(raised.fault))
        return Observation(text=text)

    async def judge(self, check: str, answer: str, calls: Sequence[Called]) -> float:
        judge, where = self._judges[check], f"check {check}"
        try:
            verdict = await self._thread.run(lambda: judge(answer, list(calls), self._found() and self._state))
        except Raised as raised:
            raise WorldError(f"its check {check} raised {describe(raised.fault)}", where=where) from raised
        if not isinstance(verdict, bool | int | float) or not 0 <= verdict <= 1:
            fix = "return True or False, or a number from 0 to 1"
            raise WorldError(f"its check {check} returned {verdict!r:.80}", where=where, fix=fix)
        return float(verdict)

    async def close(self) -> None:
        self._thread.end()

    def _found(self) -> Any:
        """What the functions are called on. In the thread of the session, where the object is made too."""
        if isinstance(self._home, ModuleType):
            return self._home
        if self._state is None:
            try:
                self._state = self._home()
            except BaseException as fault:
                found = f"{self._home.__name__}() raised {describe(fault)}"
                raise WorldError(found, where="world functions", fix="mend it: it is made for each attempt") from fault
        return self._state


def _as_text(value: Any) -> str:
    """Raises TypeError or ValueError for what JSON cannot hold."""
    if inspect.isgenerator(value) or inspect.isasyncgen(value):  # which may have no end
        raise TypeError("a generator was returned, which JSON cannot hold; return a list")
    text = value if isinstance(value, str) else to_json(value).decode()
    return text.encode("utf-8", "replace").decode()


def names_of(module: str) -> tuple[str, str]:
    """Names of the module and of its class; an empty one where the functions are its own."""
    path, _, class_name = module.partition(":")
    return path.removesuffix(".py").replace("/", "."), class_name


def _loaded(module: str) -> ModuleType:
    name, _ = names_of(module)
    path = Path(module.partition(":")[0])
    if not path.is_file():
        raise InputError("no such file", where=str(path), fix="write it, or mend world.module in params.yaml")
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
    functions = {name: value for name, value in public_functions(home).items() if name not in without}
    if not functions:
        raise InputError("has no public function", where=module, fix="write one: each becomes a tool")
    return {name: FunctionTool(name, function, module) for name, function in functions.items()}


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

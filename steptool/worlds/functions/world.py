"""The world of a project's own functions."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, model_validator

from steptool.core.errors import DataError, InputError, WorldError
from steptool.core.fields import Fraction, Outside, Settings, Text
from steptool.core.plugins import load_module
from steptool.core.revision import MEANS_NOTHING, words_revision
from steptool.core.storage import file_hash
from steptool.core.types import AnswerCheck, Reference, Task
from steptool.worlds.base import Split
from steptool.worlds.functions.session import FunctionsSession, Judge
from steptool.worlds.functions.tasks import FIX, MISSING, TaskLine, deal, read_tasks
from steptool.worlds.functions.tools import FunctionTool, public_functions


def _module_file(text: str) -> str:
    if not re.fullmatch(r"(\w+/)*\w+\.py(:\w+)?", text):
        raise ValueError(f"write FILE.py or FILE.py:Class, a file in this folder, got {text[:80]!r}")
    return text


class FunctionsWorld:
    """Reads the functions and the tasks when it is created.

    Raises InputError for a function that cannot be a tool, and DataError for a task that cannot be one; both name it.
    """

    name: ClassVar[str] = "functions"

    class Config(Settings):
        module: Annotated[Text, AfterValidator(_module_file)] = "tools.py"
        """File of the functions in the folder of the project; `FILE.py:Class` for the methods of a class."""
        tasks: Outside = "tasks.jsonl"
        dev_share: Fraction = 0.2
        """Share of the tasks without a `split` that are for dev."""
        test_share: Fraction = 0.3
        """Share of these that are for test; the others are for training."""

        @model_validator(mode="after")
        def _check(self) -> Self:
            if self.dev_share + self.test_share >= 1:
                raise ValueError("dev_share and test_share leave nothing for training")
            return self

    @staticmethod
    def content(config: FunctionsWorld.Config) -> str:
        """Hashes of the tasks, and of what the functions say: the policy reads their docstrings and errors.

        Raises DataError where the file of the tasks is missing.
        """
        path = Path(config.tasks)
        if not path.is_file():
            raise DataError("no such file", where=str(path), fix=MISSING)
        return f"tasks {file_hash(path)}, words {words_revision(FunctionsWorld.modules(config), without=MEANS_NOTHING)}"

    @staticmethod
    def modules(config: FunctionsWorld.Config) -> list[str]:
        """The module of the functions: its code counts in the revision."""
        return [_names(config)[0]]

    def __init__(self, config: Config, seed: int) -> None:
        self.config = config
        module = _loaded(config)
        self._home = _home(module, config)
        lines = read_tasks(Path(config.tasks))
        judges = {line.check for line in lines.values() if isinstance(line.check, str)}
        functions = {name: value for name, value in public_functions(self._home).items() if name not in judges}
        if not functions:
            raise InputError("has no public function", where=config.module, fix="write one: each becomes a tool")
        self._tools = {name: FunctionTool(name, function, config.module) for name, function in functions.items()}
        self._checks: dict[str, AnswerCheck | Judge | None] = {}
        made = {}
        for where, line in lines.items():
            if line.id in made:
                raise DataError(f"another line has the id {line.id!r} too", where=where, fix="give each its own id")
            made[line.id] = self._task(line, where)
            self._checks[line.id] = _judge(module, line.check, where) if isinstance(line.check, str) else line.check
        dealt = deal(list(lines.values()), {"test": config.test_share, "dev": config.dev_share}, seed)
        if empty := [split for split in ("train", "test") if not dealt[split]]:
            raise DataError(
                f"{len(lines)} tasks leave none for {' and '.join(empty)}",
                where=config.tasks,
                fix="write more tasks, or give each its `split`",
            )
        self._tasks = {split: [made[line.id] for line in found] for split, found in dealt.items()}

    def tasks(self, split: Split) -> list[Task]:
        """Every task of a split, its groups in turn."""
        return self._tasks[split]

    def reference(self, task: Task) -> Reference:
        check = self._check_of(task)
        return Reference(task_id=task.id, answer_check=check if isinstance(check, AnswerCheck) else None)

    def open(self, task: Task, seed: int) -> FunctionsSession:
        """A fresh session. `seed` changes nothing: the functions alone decide what they answer."""
        return FunctionsSession(task, self._tools, self._home, self._check_of(task))

    def _task(self, line: TaskLine, where: str) -> Task:
        names = self._tools if line.tools is None else line.tools
        if unknown := [name for name in names if name not in self._tools]:
            found = f"names the tool {unknown[0]!r}, which {self.config.module} does not have"
            raise DataError(found, where=where, fix=f"name some of {', '.join(self._tools)}")
        return Task(id=line.id, group=line.group, query=line.query, tools=tuple(self._tools[n].tool for n in names))

    def _check_of(self, task: Task) -> AnswerCheck | Judge | None:
        if task.id not in self._checks:
            raise WorldError(
                f"task {task.id} is not one of this world's",
                where="world functions",
                fix=f"make the tasks again from the present {self.config.tasks}: dvc repro prepare",
            )
        return self._checks[task.id]


def _names(config: FunctionsWorld.Config) -> tuple[str, str]:
    """Names of the module and of its class; an empty one where the functions are its own."""
    path, _, class_name = config.module.partition(":")
    return path.removesuffix(".py").replace("/", "."), class_name


def _loaded(config: FunctionsWorld.Config) -> ModuleType:
    name, _ = _names(config)
    path = Path(config.module.partition(":")[0])
    if not path.is_file():
        raise InputError("no such file", where=str(path), fix="write it, or mend world.module in params.yaml")
    module = load_module(name)
    if Path(module.__file__ or "").resolve() != path.resolve():
        raise InputError(
            f"Python knows another module {name}, {module.__file__}", where=str(path), fix="give the file another name"
        )
    return module


def _home(module: ModuleType, config: FunctionsWorld.Config) -> ModuleType | type:
    """Where the functions are found: the module, or its class."""
    _, class_name = _names(config)
    if not class_name:
        return module
    home = getattr(module, class_name, None)
    if not inspect.isclass(home):
        raise InputError(f"has no class {class_name}", where=config.module, fix="mend world.module in params.yaml")
    return home


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

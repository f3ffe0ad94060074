"""The benchmark's categories as groups of tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from steptool.core.errors import DataError, WorldError
from steptool.core.fields import Fraction, Outside, Settings
from steptool.core.storage import file_hash
from steptool.core.types import Reference, Task, content_hash
from steptool.worlds.base import SPLITS, Session, Split
from steptool.worlds.bfcl.package import (
    CLASSES,
    INSTALL,
    answer_file,
    code_content,
    data_folder,
    function_file,
    read_rows,
    task_file,
)
from steptool.worlds.bfcl.records import FunctionRow, TurnsAnswer, TurnsRow
from steptool.worlds.bfcl.tools import tool_of
from steptool.worlds.bfcl.turns import NEXT, Turn, TurnsCase, TurnsSession, text_of

Category = Literal["multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param", "multi_turn_long_context"]
MULTI_TURN: list[Category] = [
    "multi_turn_base",
    "multi_turn_miss_func",
    "multi_turn_miss_param",
    "multi_turn_long_context",
]
HINT = " Note that the provided function is in Python 3 syntax."
"""What the benchmark writes behind each description."""


class BfclWorld:
    """Raises InputError where the package bfcl-eval or the folder is missing, DataError where a file is broken."""

    name: ClassVar[str] = "bfcl"

    class Config(Settings):
        path: Outside = ""
        """Folder of the data, like bfcl_eval/data; empty takes that of the installed package."""
        categories: list[Category] = Field(default_factory=lambda: list(MULTI_TURN), min_length=1)
        """The groups, as the benchmark calls them."""
        end_turn: Literal["message", "call"] = "message"
        """How a policy ends its turn: by a message to the user, or, in formats that have none, by the tool
        `next_request`."""
        train_share: Fraction = 0.0
        dev_share: Fraction = 0.0
        """Of the scenarios, chosen by their ids and the seed. The rest, and so by default all, is for testing."""

        @model_validator(mode="after")
        def _check(self) -> BfclWorld.Config:
            if self.train_share + self.dev_share > 1:
                raise ValueError("train_share and dev_share are more than 1 together")
            if len(set(self.categories)) < len(self.categories):
                raise ValueError("categories names one twice")
            return self

    def __init__(self, config: Config, seed: int) -> None:
        """`seed` decides the splits where there is more than one, and nothing else."""
        self.config = config
        self.seed = seed if config.train_share or config.dev_share else None
        folder = data_folder(config.path)
        functions = _Functions(folder)
        self._cases = {
            case.task.id: case
            for category in config.categories
            for case in _turns_cases(folder, category, functions, config.end_turn)
        }
        self._splits: dict[Split, list[Task]] = {split: [] for split in SPLITS}
        tasks = _in_turn([case.task for case in self._cases.values()])
        scenarios = _scenarios(tasks)
        for task in tasks:
            self._splits[self._split(scenarios[task.id])].append(task)

    @staticmethod
    def content(config: Config) -> str:
        """Hash of the data and of the package's code that runs. Raises InputError or DataError where it is missing."""
        folder = data_folder(config.path)
        files = [function_file(folder, name) for name in CLASSES]
        for category in config.categories:
            files += [task_file(folder, category), answer_file(folder, category)]
        if missing := [file for file in files if not file.is_file()]:
            raise DataError("no such file", where=str(missing[0]), fix="set world.path to a folder like bfcl_eval/data")
        return f"files {content_hash([file_hash(file) for file in files])}, code {code_content()}"

    def tasks(self, split: Split) -> list[Task]:
        """Raises WorldError for a split that is not train, dev or test."""
        if split not in self._splits:
            raise WorldError(f"no split {split!r}", where="world bfcl", fix=f"name one of {', '.join(SPLITS)}")
        return list(self._splits[split])

    def reference(self, task: Task) -> Reference:
        turns = self.case(task).turns
        called = dict.fromkeys(call.name for turn in turns for call in turn.truth)
        return Reference(
            task_id=task.id,
            has_own_check=True,
            relevant_tools=tuple(name for name in called if task.tool(name)),
            goal="\n".join(f"{turn.text} → {_shown(turn)}" for turn in turns),
        )

    def open(self, task: Task, seed: int) -> Session:
        """`seed` changes nothing: the benchmark's random numbers belong to its tasks."""
        return TurnsSession(self.case(task))

    def case(self, task: Task) -> TurnsCase:
        """A task with its ground truth: for demonstrations and tests, never for a policy."""
        case = self._cases.get(task.id)
        if case is None or case.task != task:
            raise WorldError(
                f"task {task.id} is not one of this world's",
                where="world bfcl",
                fix="make the tasks again from the present params.yaml: dvc repro prepare",
            )
        return case

    def _split(self, scenario: str) -> Split:
        place = Random(f"bfcl:{self.seed}:{scenario}").random()
        if place < self.config.train_share:
            return "train"
        return "dev" if place < self.config.train_share + self.config.dev_share else "test"


class _Functions:
    """Descriptions of functions by class, each file read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, list[FunctionRow]] = {}

    def of(self, name: str) -> list[FunctionRow]:
        if name not in self._read:
            self._read[name] = list(read_rows(function_file(self._folder, name), FunctionRow))
        return self._read[name]


def _turns_cases(folder: Path, category: Category, functions: _Functions, end_turn: str) -> Iterator[TurnsCase]:
    answers = {row.id: row for row in read_rows(answer_file(folder, category), TurnsAnswer)}
    for row in read_rows(task_file(folder, category), TurnsRow):
        if row.id not in answers or len(answers[row.id].ground_truth) != len(row.question):
            raise DataError(
                f"task {row.id[:64]} has no ground truth of {len(row.question)} turns",
                where=str(answer_file(folder, category)),
                fix=f"restore the file: {INSTALL}",
            )
        yield _turns_case(row, answers[row.id], category, functions, end_turn)


def _turns_case(
    row: TurnsRow, answer: TurnsAnswer, category: Category, functions: _Functions, end_turn: str
) -> TurnsCase:
    by_class = {name: functions.of(name) for name in row.involved_classes}
    tools = {function.name: tool_of(function, HINT) for each in by_class.values() for function in each}
    arriving = {
        turn: tuple(tools.pop(name) for name in names if name in tools) for turn, names in row.missed_function.items()
    }
    turns = []
    for number, (said, truth) in enumerate(zip(row.question, answer.ground_truth, strict=True)):
        new = arriving.get(number, ())
        text = text_of("\n".join(message.content for message in said), new)
        turns.append(Turn(text=text, truth=tuple(truth), arriving=new))
    offered = (*tools.values(), NEXT) if end_turn == "call" else tuple(tools.values())
    return TurnsCase(
        task=Task(id=row.id, group=category, query=turns[0].text, tools=offered),
        turns=tuple(turns),
        functions={name: [function.name for function in each] for name, each in by_class.items()},
        settings=row.initial_config,
        long_context=category == "multi_turn_long_context",
    )


def _shown(turn: Turn) -> str:
    """The ground truth of a turn in a line."""
    calls = [f"{call.name}({', '.join(map(repr, (*call.args, *call.arguments.items())))})" for call in turn.truth]
    return "; ".join(calls) or "nothing can be done"


def _in_turn(tasks: Sequence[Task]) -> list[Task]:
    """One task of each group after the other, as long as they last."""
    by_group: dict[str, list[Task]] = {}
    for task in tasks:
        by_group.setdefault(task.group, []).append(task)
    return [task for turn in zip_longest(*by_group.values()) for task in turn if task is not None]


def _scenarios(tasks: Sequence[Task]) -> dict[str, str]:
    """Task → the scenario that it belongs to: tasks of one scenario stand in one split.

    The multi-turn categories are variants of the same scenarios, which their ids number, and some scenarios begin with
    the same words.
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while (above := parent.setdefault(key, key)) != key:
            key = above
        return key

    for task in tasks:
        number = f"number {task.id.rpartition('_')[2]}"
        parent[root(f"query {' '.join(task.query.casefold().split())}")] = root(number)
    return {task.id: root(f"number {task.id.rpartition('_')[2]}") for task in tasks}

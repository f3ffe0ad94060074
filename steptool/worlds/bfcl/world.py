"""The benchmark's categories as groups of tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import ClassVar, Literal, get_args

from pydantic import Field, model_validator

from steptool.core.errors import DataError
from steptool.core.fields import Fraction, Outside, Settings
from steptool.core.storage import file_hash
from steptool.core.types import Reference, Task, Trajectory, content_hash
from steptool.worlds.base import SPLITS, Session, Split
from steptool.worlds.bfcl.cases import Case, Cases, has_answers, is_multi_turn
from steptool.worlds.bfcl.package import CLASSES, answer_file, code_content, data_folder, function_file, task_file
from steptool.worlds.bfcl.turns import TurnsCase
from steptool.worlds.in_turn import in_turn
from steptool.worlds.lookup import case_of, of_split
from steptool.worlds.solutions import demonstrate

Category = Literal[
    "multi_turn_base",
    "multi_turn_miss_func",
    "multi_turn_miss_param",
    "multi_turn_long_context",
    "simple_python",
    "simple_java",
    "simple_javascript",
    "multiple",
    "parallel",
    "parallel_multiple",
    "irrelevance",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
    "live_irrelevance",
    "live_relevance",
]
MULTI_TURN: list[Category] = [category for category in get_args(Category) if is_multi_turn(category)]


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
        cases = Cases(folder, config.end_turn)
        by_category = [list(cases.of(category)) for category in config.categories]
        self._cases = {case.task.id: case for found in by_category for case in found}
        self._splits: dict[Split, list[Task]] = {split: [] for split in SPLITS}
        tasks = in_turn((case.task for case in _begun_apart(by_category)), lambda task: task.group)
        self._scenarios = _scenarios(tasks)
        for task in tasks:
            self._splits[self._split(self._scenarios[task.id])].append(task)

    @staticmethod
    def content(config: Config) -> str:
        """Hash of the data and of the package's code that runs. Raises InputError or DataError where it is missing."""
        folder = data_folder(config.path)
        files = [function_file(folder, name) for name in CLASSES]
        for category in config.categories:
            files += [task_file(folder, category)]
            files += [answer_file(folder, category)] if has_answers(category) else []
        if missing := [file for file in files if not file.is_file()]:
            raise DataError("no such file", where=str(missing[0]), fix="set world.path to a folder like bfcl_eval/data")
        return f"files {content_hash([file_hash(file) for file in files])}, code {code_content()}"

    def tasks(self, split: Split) -> list[Task]:
        """Raises WorldError for a split that is not train, dev or test."""
        return of_split(split, self._splits, "world bfcl")

    def reference(self, task: Task) -> Reference:
        """The variants of a scenario are one cluster."""
        reference = self.case(task).reference
        return reference.model_copy(update={"cluster": self._scenarios[task.id]})

    def open(self, task: Task, seed: int) -> Session:
        """`seed` changes nothing: the benchmark's random numbers belong to its tasks."""
        return self.case(task).open()

    def demonstrations(self, count: int, flawed: float, seed: int) -> list[Trajectory]:
        """Ground truths of training tasks of several turns. Raises InputError where there are fewer than `count`."""
        cases = (self.case(task) for task in self._splits["train"])
        solutions = [case.solution for case in cases if isinstance(case, TurnsCase)]
        return demonstrate(solutions, count, flawed, seed, self.name)

    def case(self, task: Task) -> Case:
        """A task with its ground truth: for demonstrations and tests, never for a policy."""
        return case_of(task, self._cases, "world bfcl")

    def _split(self, scenario: str) -> Split:
        place = Random(f"bfcl:{self.seed}:{scenario}").random()
        if place < self.config.train_share:
            return "train"
        return "dev" if place < self.config.train_share + self.config.dev_share else "test"


def _begun_apart(by_category: Sequence[Sequence[Case]]) -> Iterator[Case]:
    """Those of each category from another place on: categories that are variants of the same scenarios then begin with
    different ones, so that the first n tasks are of as many scenarios as they can be."""
    for number, found in enumerate(by_category):
        first = number * len(found) // len(by_category)
        yield from (*found[first:], *found[:first])


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
        parent[root(f"query {' '.join(task.query.casefold().split())}")] = root(_number(task))
    return {task.id: root(_number(task)) for task in tasks}


def _number(task: Task) -> str:
    return f"multi_turn {task.id.rpartition('_')[2]}" if is_multi_turn(task.group) else task.id

"""The benchmark's tickets as tasks, grouped by what is broken."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from steptool.core.errors import DataError
from steptool.core.fields import Outside, Settings, Text
from steptool.core.messages import tool_of
from steptool.core.types import Reference, Task, Trajectory, content_hash
from steptool.worlds.base import SPLITS, Session, Split
from steptool.worlds.checks import MAX_NAME
from steptool.worlds.in_turn import in_turn
from steptool.worlds.lookup import case_of, of_split
from steptool.worlds.solutions import Solution, demonstrate
from steptool.worlds.tau2.package import (
    RESTORE,
    SPLITS_FILE,
    TASKS,
    Domain,
    content,
    data_folder,
    read_documents,
    rules,
    task_class,
)
from steptool.worlds.tau2.session import Case, Tau2Session

Group = Literal["service_issue", "mobile_data_issue", "mms_issue"]
JUDGED = frozenset({"ENV_ASSERTION", "ACTION"})
"""What a verdict may rest on here; the others need a judge, or a conversation."""
INSTRUCTIONS = (
    "You are an agent of customer service. The request is a ticket. Solve it by calling tools, in keeping with the"
    " policy below; there is nobody to talk to, and the tools of the user's phone are yours, too. End the attempt once"
    " the ticket is solved."
)


class Tau2World:
    """Raises InputError where a package or the folder is missing, DataError where a file is broken."""

    name: ClassVar[str] = "tau2"

    class Config(Settings):
        path: Outside = ""
        """Folder of the domain, like tau2/data/tau2/domains/telecom; empty takes that of the installed package."""
        domain: Text = "telecom"
        tasks: Literal["small", "base", "full"] = "base"
        """Which of the benchmark's sets: 20, 114 or 2,285 tickets."""
        policy: Literal["manual", "workflow"] = "manual"
        """How the agent is told to support its users."""
        train: list[Group] = Field(default_factory=list)
        """Groups to train on. The rest, and so by default all, is for testing."""
        dev: list[Group] = Field(default_factory=list)

        @field_validator("domain")
        @classmethod
        def _can_be_solved_alone(cls, domain: str) -> str:
            if domain in ("airline", "retail"):
                raise ValueError(
                    f"{domain!r} needs a user, whose part a model behind an endpoint would have to play, which"
                    " nothing here does; the tickets of telecom are solved without one"
                )
            if domain != "telecom":
                raise ValueError(f"there is no domain {domain[:80]!r}; use telecom")
            return domain

        @model_validator(mode="after")
        def _check(self) -> Tau2World.Config:
            if len({*self.train, *self.dev}) < len(self.train) + len(self.dev):
                raise ValueError("train and dev name a group twice")
            return self

    def __init__(self, config: Config, seed: int) -> None:
        """`seed` changes nothing: neither tickets nor tools have random numbers."""
        self.config = config
        folder = data_folder(config.path)
        domain = Domain(folder)
        offered = domain.environment()
        tools = [tool.openai_schema["function"] for tool in (*offered.get_tools(), *offered.get_user_tools())]
        shared: dict[str, Any] = {
            "system": f"{INSTRUCTIONS}\n<policy>\n{rules(folder, config.policy)}\n</policy>",
            "tools": tuple(tool_of(function) for function in tools),
        }
        self._cases = {
            name: Case(
                task=Task(id=name, group=_group(name), query=written.ticket, **shared), written=written, domain=domain
            )
            for written in _written(folder, config.tasks)
            for name in [_short(written.id)]
        }
        by_group: dict[str, list[Task]] = {}
        for case in self._cases.values():
            by_group.setdefault(case.task.group, []).append(case.task)
        named: dict[Split, list[Group]] = {"train": config.train, "dev": config.dev}
        named["test"] = [group for group in by_group if group not in (*config.train, *config.dev)]  # type: ignore[misc]
        self._splits = {
            split: in_turn(
                (task for group in named[split] for task in by_group.get(group, [])), lambda task: task.group
            )
            for split in SPLITS
        }

    @staticmethod
    def content(config: Config) -> str:
        """Hash of the domain's files and code. Raises InputError or DataError where one is missing."""
        return content(data_folder(config.path))

    def tasks(self, split: Split) -> list[Task]:
        """Raises WorldError for a split that is not train, dev or test."""
        return of_split(split, self._splits, "world tau2")

    def reference(self, task: Task) -> Reference:
        return self.case(task).reference

    def open(self, task: Task, seed: int) -> Session:
        return Tau2Session(self.case(task))

    def demonstrations(self, count: int, flawed: float, seed: int) -> list[Trajectory]:
        """The benchmark's own actions for training tasks. Raises InputError where there are fewer than `count`."""
        cases = [self.case(task) for task in self._splits["train"]]
        solutions = [Solution(case.task, [case.solution], partial(Tau2Session, case)) for case in cases]
        return demonstrate(solutions, count, flawed, seed, self.name)

    def case(self, task: Task) -> Case:
        """A task with its solution: for tests, never for a policy."""
        return case_of(task, self._cases, "world tau2")


def _written(folder: Path, chosen: str) -> Iterator[Any]:
    """The benchmark's tasks of one of its sets. Raises DataError for one that cannot be solved alone, or judged."""
    splits, rows = read_documents(folder / SPLITS_FILE), read_documents(folder / TASKS)
    if not isinstance(splits, dict) or not isinstance(splits.get(chosen), list):
        raise DataError(f"has no set {chosen!r}", where=str(folder / SPLITS_FILE), fix=RESTORE)
    wanted = set(map(str, splits[chosen]))
    if not isinstance(rows, list):
        raise DataError("is no list of tasks", where=str(folder / TASKS), fix=RESTORE)
    for number, row in enumerate(rows):
        where = f"{folder / TASKS}, task {number}"
        if not (isinstance(row, dict) and isinstance(row.get("id"), str)):
            raise DataError("is no task with an id", where=where, fix=RESTORE)
        if row["id"] not in wanted:
            continue
        try:
            task = task_class().model_validate(row)
        except ValidationError as error:
            raise DataError(f"{error.errors()[0]['msg'][:300]}", where=where, fix=RESTORE) from error
        if not task.ticket or task.evaluation_criteria is None:
            raise DataError("has no ticket, or nothing to judge it by", where=where, fix=RESTORE)
        if unknown := {basis.value for basis in task.evaluation_criteria.reward_basis} - JUDGED:
            raise DataError(f"is judged by {', '.join(sorted(unknown))}, which needs a user", where=where, fix=RESTORE)
        yield task


def _short(name: str) -> str:
    """A name of the benchmark lists all that is broken. The end of one that is too long for a task is a hash of it."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 20]}#{content_hash(name, 8)}"


def _group(name: str) -> str:
    """`[mms_issue]bad_wifi_calling[PERSONA:None]` → mms_issue."""
    return name.partition("]")[0].lstrip("[")

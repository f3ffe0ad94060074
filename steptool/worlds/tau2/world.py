"""The benchmark's tasks: tickets grouped by what is broken, or requests of users in the benchmark's own two parts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from steptool.core.errors import DataError
from steptool.core.fields import Many, Outside, Settings, Text
from steptool.core.messages import tool_of
from steptool.core.storage import read_text
from steptool.core.types import Reference, Task, Trajectory, content_hash
from steptool.endpoints.settings import PartSettings
from steptool.worlds.base import SPLITS, Session, Split
from steptool.worlds.checks import MAX_NAME
from steptool.worlds.in_turn import in_turn
from steptool.worlds.lookup import case_of, of_split
from steptool.worlds.solutions import Solution, demonstrate
from steptool.worlds.tau2.dialogue import UserModel
from steptool.worlds.tau2.package import RESTORE, SPLITS_FILE, TASKS, content, data_folder, imported, read_documents
from steptool.worlds.tau2.service import BY_CALL, CLASSES, TALK, Service, guidelines_file
from steptool.worlds.tau2.session import Case, Talks, Tau2Session
from steptool.worlds.tau2.telecom import Telecom

TELECOM = "telecom"
ALONE, WITH_A_USER = ("service_issue", "mobile_data_issue", "mms_issue"), ("train", "test")
"""Groups of telecom, and of the domains with a user."""
Group = Literal["service_issue", "mobile_data_issue", "mms_issue", "train", "test"]
NEEDS_USER = (
    "{} needs a user, whose part a model plays: give its endpoint as "
    "user: {{url: 'https://api.openai.com/v1', model: gpt-x, key: OPENAI_API_KEY}} of the world, or to "
    "steptool bench as --set world.user.url=URL --set world.user.model=MODEL"
)


class Tau2World:
    """Raises InputError where a package or the folder is missing, DataError where a file is broken, and what `Client`
    of the endpoint raises."""

    name: ClassVar[str] = "tau2"

    class Config(Settings):
        path: Outside = ""
        """Folder of the domain, like tau2/data/tau2/domains/telecom; empty takes that of the installed package."""
        domain: Text = TELECOM
        """telecom, whose tickets are solved without a user; airline or retail, with one."""
        tasks: Literal["small", "base", "full", "train", "test"] = "base"
        """Which of the benchmark's sets: of telecom 20, 114, 2,285, 74 or 40 tickets. airline and retail have no small
        and no full one."""
        policy: Literal["manual", "workflow"] = "manual"
        """How the agent of telecom is told to support its users."""
        train: list[Group] = Field(default_factory=list)
        """Groups to train on. The rest, and so by default all, is for testing."""
        dev: list[Group] = Field(default_factory=list)
        user: PartSettings | None = None
        """Endpoint of the model that plays the users of airline and retail. Its `system` stands in place of the
        benchmark's guidelines for users."""
        max_user_messages: Many = 40
        """Of one conversation. A user who has not ended it by then leaves the task unsolved."""
        talk: Literal["message", "call"] = "message"
        """How a policy speaks to the user: by a message, or, in formats that have none, by the tool `talk_to_user`."""

        @model_validator(mode="after")
        def _check(self) -> Tau2World.Config:
            if self.domain not in (TELECOM, *CLASSES):
                raise ValueError(f"there is no domain {self.domain[:80]!r}; use telecom, airline or retail")
            if self.domain != TELECOM and self.user is None:
                raise ValueError(NEEDS_USER.format(self.domain))
            if self.domain == TELECOM and self.user is not None:
                raise ValueError("the tickets of telecom are solved without a user; leave `user` out")
            if len({*self.train, *self.dev}) < len(self.train) + len(self.dev):
                raise ValueError("train and dev name a group twice")
            groups = ALONE if self.domain == TELECOM else WITH_A_USER
            if unknown := {*self.train, *self.dev} - {*groups}:
                raise ValueError(
                    f"{self.domain} has no group {', '.join(sorted(unknown))}; its groups are {', '.join(groups)}"
                )
            return self

    def __init__(self, config: Config, seed: int) -> None:
        """`seed` changes nothing: neither tasks nor tools have random numbers."""
        self.config = config
        folder, is_alone = data_folder(config.path, config.domain), config.domain == TELECOM
        domain = Telecom(folder, config.policy) if is_alone else Service(folder, config.domain)
        tools = [tool_of(tool.openai_schema["function"]) for tool in domain.tools()]
        instructions = domain.instructions
        if config.talk == "call" and not is_alone:
            tools.append(TALK)
            instructions += BY_CALL
        shared: dict[str, Any] = {
            "system": f"{instructions}\n<policy>\n{domain.rules}\n</policy>",
            "tools": tuple(tools),
        }
        self._cases = {
            name: Case(
                task=Task(id=name, group=group, query=written.ticket if is_alone else "", **shared),
                written=written,
                domain=domain,
            )
            for written, group in _written(folder, config.tasks, is_alone)
            for name in [_short(written.id)]
        }
        self._splits = _split([case.task for case in self._cases.values()], config.train, config.dev)
        self._user = UserModel(config.user, read_text(guidelines_file())) if config.user else None
        self._asked: dict[str, Task] = {}
        """Tasks with the first message of their user, by their ids."""

    @staticmethod
    def content(config: Config) -> str:
        """Hash of the domain's files and code. Raises InputError or DataError where one is missing."""
        folder = data_folder(config.path, config.domain)
        kind = Telecom if config.domain == TELECOM else Service
        return content(kind.files(folder), config.domain)

    def tasks(self, split: Split) -> list[Task]:
        """Where there is a user, the model behind the endpoint is asked for the first messages; what it answered before
        is not asked again. Raises WorldError for a split that is not train, dev or test, and what `UserModel.openings`
        raises."""
        tasks = of_split(split, self._splits, "world tau2")
        if self._user is None:
            return tasks
        missing = [task for task in tasks if task.id not in self._asked]
        scenarios = {task.id: self._cases[task.id].scenario for task in missing}
        queries = self._user.openings(scenarios) if scenarios else {}
        self._asked |= {task.id: task.model_copy(update={"query": queries[task.id]}) for task in missing}
        return [self._asked[task.id] for task in tasks]

    def reference(self, task: Task) -> Reference:
        return self.case(task).reference

    def open(self, task: Task, seed: int) -> Session:
        """`seed`: with another one, the user may answer otherwise."""
        user = Talks(self._user, self.config.max_user_messages, seed) if self._user else None
        return Tau2Session(self.case(task), task.query, user)

    def demonstrations(self, count: int, flawed: float, seed: int) -> list[Trajectory]:
        """The benchmark's own actions for training tasks; none where they would be one side of a conversation. Raises
        InputError where there are fewer than `count`."""
        cases = [self.case(task) for task in self._splits["train"]] if self._user is None else []
        solutions = [Solution(case.task, [case.solution], partial(Tau2Session, case)) for case in cases]
        return demonstrate(solutions, count, flawed, seed, self.name)

    def case(self, task: Task) -> Case:
        """A task with its solution: for tests, never for a policy. Its query is the one of `task` where it was asked of
        a user."""
        asked = {} if self._user is None else {"query": ""}
        return case_of(task.model_copy(update=asked), self._cases, "world tau2")

    def end(self) -> None:
        if self._user is not None:
            self._user.close()


def _split(tasks: list[Task], train: list[Group], dev: list[Group]) -> dict[Split, list[Task]]:
    """The tasks of whole groups, interleaved."""

    def of(task: Task) -> Split:
        return "train" if task.group in train else "dev" if task.group in dev else "test"

    return {split: in_turn((task for task in tasks if of(task) == split), lambda task: task.group) for split in SPLITS}


def _written(folder: Path, chosen: str, is_alone: bool) -> Iterator[tuple[Any, str]]:
    """The benchmark's tasks of one of its sets, each with its group. Raises DataError for one that cannot be done, or
    judged."""
    sets, rows = read_documents(folder / SPLITS_FILE), read_documents(folder / TASKS)
    if not isinstance(sets, dict) or not isinstance(sets.get(chosen), list):
        there = ", ".join(map(str, sets)) if isinstance(sets, dict) else "none"
        fix = f"name another set as world.tasks, or {RESTORE}"
        raise DataError(f"has no set {chosen!r}; its sets: {there[:200]}", where=str(folder / SPLITS_FILE), fix=fix)
    wanted, for_training = set(map(str, sets[chosen])), set(map(str, sets.get("train") or []))
    if not isinstance(rows, list):
        raise DataError("is no list of tasks", where=str(folder / TASKS), fix=RESTORE)
    kind, judged = imported("data_model.tasks").Task, (Telecom if is_alone else Service).judged
    for number, row in enumerate(rows):
        where = f"{folder / TASKS}, task {number}"
        if not (isinstance(row, dict) and isinstance(row.get("id"), str)):
            raise DataError("is no task with an id", where=where, fix=RESTORE)
        if row["id"] not in wanted:
            continue
        try:
            task = kind.model_validate(row)
        except ValidationError as error:
            raise DataError(f"{error.errors()[0]['msg'][:300]}", where=where, fix=RESTORE) from error
        if task.evaluation_criteria is None or (is_alone and not task.ticket):
            raise DataError("has no ticket, or nothing to judge it by", where=where, fix=RESTORE)
        if unknown := {basis.value for basis in task.evaluation_criteria.reward_basis} - judged:
            raise DataError(f"is judged by {', '.join(sorted(unknown))}, which needs a user", where=where, fix=RESTORE)
        if not is_alone and task.initial_state is not None:
            raise DataError("begins in a state of its own, which only telecom has", where=where, fix=RESTORE)
        yield task, _kind_of_ticket(task.id) if is_alone else "train" if task.id in for_training else "test"


def _short(name: str) -> str:
    """A name of the benchmark lists all that is broken. The end of one that is too long for a task is a hash of it."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 20]}#{content_hash(name, 8)}"


def _kind_of_ticket(name: str) -> str:
    """`[mms_issue]bad_wifi_calling[PERSONA:None]` → mms_issue."""
    return name.partition("]")[0].lstrip("[")

"""A world of a project's own tools and tasks. Where the tools come from is for the classes that inherit from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from steptool.core.errors import DataError, InputError
from steptool.core.fields import Fraction, Outside, Settings, Text
from steptool.core.storage import file_hash
from steptool.core.types import AnswerCheck, Reference, Task, content_hash
from steptool.worlds.base import Split
from steptool.worlds.lookup import of_split, of_task
from steptool.worlds.project.arguments import Arguments
from steptool.worlds.project.checks import Checks, StateCheck
from steptool.worlds.project.recording import RecordedConnection, RecordedJudges, Recordings
from steptool.worlds.project.session import ProjectSession
from steptool.worlds.project.split import cluster_names, deal
from steptool.worlds.project.tasks import MISSING, TaskLine, read_tasks
from steptool.worlds.project.toolbox import Connection, Judges, Toolbox
from steptool.worlds.workers.code import checks_file, names_of
from steptool.worlds.workers.toolbox import FunctionsToolbox

MOST_NAMED = 20
"""Tools that a message names."""
Record = Annotated[Literal["off", "auto", "only"], Field(exclude=True)]


class ProjectSettings(Settings):
    """What the worlds of a project's own tools are set to, wherever the tools come from."""

    tasks: Outside = "tasks.jsonl"
    dev_share: Fraction = 0.2
    """Share of the tasks without a `split` that are for dev."""
    test_share: Fraction = 0.3
    """Share of these that are for test; the others are for training."""
    record: Record = "off"
    """auto: replies of the tools are kept, and what is kept is not asked again; only: nothing is asked, and a call of
    which no reply is kept is an error. Neither changes what a reply says, so no stage runs again for it."""
    recordings: Annotated[Outside, Field(min_length=1, exclude=True)] = "recordings.db"
    """File of the replies."""
    checks: Annotated[Text, AfterValidator(checks_file)] = ""
    """File of the check functions that tasks name. The module of the tools, where it is empty and there is one."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dev_share + self.test_share >= 1:
            raise ValueError("dev_share and test_share leave nothing for training")
        return self


@dataclass(frozen=True)
class Listing:
    """What tells which tools there are, where that is not a file of the project: a document, a server's answer."""

    source: str
    """The same where it is asked again."""
    ask: Callable[[], str]


def recorded_listing(config: ProjectSettings, listing: Listing) -> str:
    """What a listing says; what it said when it was first asked, where replies are recorded.

    Raises InputError where it must not be asked now, and what `ask` raises.
    """
    if config.record == "off":
        return listing.ask()
    with closing(Recordings(Path(config.recordings))) as recordings:
        found = recordings.listing(listing.source)
        if found is None and config.record == "only":
            fix = "set world.record: auto, and run it once"
            raise InputError(
                f"no listing of its tools is recorded in {config.recordings}", where=listing.source, fix=fix
            )
        if found is None:
            found = listing.ask()
            recordings.keep_listing(listing.source, found)
        return found


class ProjectWorld:
    """Reads the tasks when it is created. `seed` deals those out that name no split.

    Raises DataError for a task that cannot be one; it names the line.
    """

    system = ""
    """What every task tells the policy before its query."""

    def __init__(self, config: ProjectSettings, seed: int, toolbox: Toolbox) -> None:
        self.config: Any = config
        self.toolbox = toolbox
        self.recordings = Recordings(Path(config.recordings))
        lines = read_tasks(Path(config.tasks))
        self._judging: FunctionsToolbox | None = None
        if not isinstance(toolbox, FunctionsToolbox) and (checks := self.named_checks(config)):
            self._judging = FunctionsToolbox("", checks, checks_file=config.checks)
        self._checks: dict[str, Checks] = {}
        made = {}
        for where, line in lines.items():
            if line.id in made:
                raise DataError(f"another line has the id {line.id!r} too", where=where, fix="give each its own id")
            made[line.id] = self._task(line, where)
            self._checks[line.id] = line.checks
        self._clusters = cluster_names(lines)
        dealt = deal(lines, {"test": config.test_share, "dev": config.dev_share}, seed)
        if empty := [split for split in ("train", "test") if not dealt[split]]:
            raise DataError(
                f"{len(lines)} tasks leave none for {' and '.join(empty)}",
                where=config.tasks,
                fix="write more tasks, or give each its `split`",
            )
        self._tasks: Mapping[Split, list[Task]] = {
            split: [made[line.id] for line in found] for split, found in dealt.items()
        }

    @staticmethod
    def tasks_content(config: ProjectSettings) -> str:
        """Hash of the tasks. Raises DataError where their file is missing."""
        path = Path(config.tasks)
        if not path.is_file():
            raise DataError("no such file", where=str(path), fix=MISSING)
        return f"tasks {file_hash(path)}"

    @staticmethod
    def listing(config: Any) -> Listing | None:
        """What tells which tools there are, where it is to be recorded."""
        return None

    @property
    def identity(self) -> str:
        """Whose replies the recordings are: of two worlds with the same, one may replay those of the other."""
        own = self.config.model_dump(mode="json", exclude=set(ProjectSettings.model_fields))
        return content_hash([type(self).__qualname__, own])

    @staticmethod
    def modules(config: Any) -> list[str]:
        """The module of the check functions: its code counts in the revision."""
        return [names_of(config.checks)[0]] if config.checks else []

    @staticmethod
    def named_checks(config: ProjectSettings) -> dict[str, str]:
        """The check functions that tasks name, and where they do."""
        lines = read_tasks(Path(config.tasks))
        return {name: where for where, line in lines.items() for name in line.functions}

    def end(self) -> None:
        """End the processes and connections that the attempts share."""
        self.toolbox.close()
        self.recordings.close()
        if self._judging is not None:
            self._judging.close()

    def tasks(self, split: Split) -> list[Task]:
        """Every task of a split, its groups in turn."""
        return of_split(split, self._tasks, self._where)

    def reference(self, task: Task) -> Reference:
        """The check of the answer, where there is no other check beside it; and the cluster, where it has others."""
        checks, cluster = self._checks_of(task), self._clusters.get(task.id, "")
        if len(checks) == 1 and isinstance(checks[0], AnswerCheck):
            return Reference(task_id=task.id, answer_check=checks[0], cluster=cluster)
        for_a_judge = any(isinstance(check, AnswerCheck) and check.kind == "judge" for check in checks)
        return Reference(task_id=task.id, has_own_check=bool(checks) and not for_a_judge, cluster=cluster)

    def open(self, task: Task, seed: int) -> ProjectSession:
        """A fresh session. `seed` changes nothing: the tools alone decide what they answer."""
        return ProjectSession(task, *self.parts(task, self.connect()), self.toolbox.changes_state)

    def parts(self, task: Task, connection: Connection) -> tuple[Connection, Checks, Judges | None]:
        """What a fresh session at a task is made of: the connection to its tools, its checks, and what runs them."""
        checks = self._checks_of(task)
        judges = connection if isinstance(connection, Judges) else None
        if any(isinstance(check, str) for check in checks) and judges is None and self._judging is not None:
            judges = self._judging.connect()
        return connection, checks, judges

    def connect(self) -> Connection:
        """The tools of one attempt, live or recorded."""
        if self.config.record == "off":
            return self.toolbox.connect()
        recorded = RecordedJudges if isinstance(self.toolbox, FunctionsToolbox) else RecordedConnection
        return recorded(self.toolbox, self.recordings, self.identity, only=self.config.record == "only")

    def _task(self, line: TaskLine, where: str) -> Task:
        tools = self.toolbox.tools
        names = tools if line.tools is None else line.tools
        if unknown := [name for name in names if name not in tools]:
            raise DataError(f"no tool is called {unknown[0]!r}", where=where, fix=f"name some of {self._named()}")
        for check in line.checks:
            if isinstance(check, StateCheck):
                self.refuse_unless_callable(check, where)
        offered = tuple(tools[name] for name in names)
        return Task(id=line.id, group=line.group, query=line.query, tools=offered, system=self.system)

    def refuse_unless_callable(self, check: StateCheck, where: str) -> None:
        """Raise DataError for a check of a state that no tool here can tell."""
        tools = self.toolbox.tools
        if check.tool not in tools:
            found = f"check: no tool is called {check.tool!r}"
            raise DataError(found, where=where, fix=f"name one of {self._named()}")
        if problem := Arguments(tools[check.tool], where).problem(check.arguments):
            found = f"check: these are no arguments of {check.tool}: {problem}"
            raise DataError(found, where=where, fix=f"mend them; `steptool tools try {check.tool}` calls it")

    def _named(self) -> str:
        """The tools, for a message: a service may have hundreds."""
        names = list(self.toolbox.tools)
        more = f" and {len(names) - MOST_NAMED} more: `steptool tools list`" if len(names) > MOST_NAMED else ""
        return ", ".join(names[:MOST_NAMED]) + more

    def _checks_of(self, task: Task) -> Checks:
        return of_task(task, self._checks, self._where, self.config.tasks)

    @property
    def _where(self) -> str:
        return f"world {getattr(self, 'name', '')}"

"""The world of recorded attempts: the questions of a log, and tools that reply as they did then.

    {"query": "What does Dune cost?", …}  ──▶  find(title: "Dune")  ──▶  the reply in the log
                                               find(title: "Emma")  ──▶  the error no_recording, if nobody asked that

Nothing is asked for real and nothing is changed, so an attempt may do what no attempt at the real tools may do. Which
reply a call gets is in `replies`; the evidence of an outcome says how many were not from an attempt at the same task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from steptool.core.errors import DataError
from steptool.core.fields import Outside
from steptool.core.types import Observation, Outcome, Task, Tool, ToolCall
from steptool.traces import folder as imported
from steptool.worlds.project.checks import Check, StateCheck
from steptool.worlds.project.session import ProjectSession, failure
from steptool.worlds.project.toolbox import Judges
from steptool.worlds.project.world import ProjectSettings, ProjectWorld
from steptool.worlds.traces.replies import Origin, Replies, key


class RecordedReplies:
    """The tools of one attempt. `query` is what it is about; without one, every reply is of another task."""

    def __init__(self, replies: Replies, query: str = "") -> None:
        self._replies, self._query = replies, query
        self._made: Counter[str] = Counter()
        self.origins: Counter[Origin] = Counter()
        """Where the replies so far come from."""

    async def call(self, call: ToolCall) -> Observation:
        found = self._replies.find(self._query, call, self._made[key(call)])
        self._made[key(call)] += 1
        if found is None:
            return failure("no_recording", f"no reply of {call.name} to these arguments is recorded")
        self.origins[found.origin] += 1
        return found.observation

    async def close(self) -> None:
        """Nothing was started."""


class ReplayToolbox:
    """The tools of a folder of traces."""

    def __init__(self, folder: Path, nearest: float) -> None:
        self.replies = Replies(imported.attempts(folder), nearest)
        self.tools: Mapping[str, Tool] = {tool.name: tool for tool in imported.tools(folder)}

    def changes_state(self, name: str) -> bool:
        """None does: a recorded reply is only read."""
        return False

    def connect(self, query: str = "") -> RecordedReplies:
        return RecordedReplies(self.replies, query)

    def close(self) -> None:
        """Nothing was started."""


class ReplayedSession(ProjectSession):
    """An attempt whose evidence says where its replies come from."""

    def __init__(
        self, task: Task, connection: RecordedReplies, checks: Sequence[Check], judges: Judges | None = None
    ) -> None:
        super().__init__(task, connection, checks, judges)
        self._origins = connection.origins

    async def close(self, answer: str | None) -> Outcome:
        outcome = await super().close(answer)
        elsewhere = [f"{count} {origin}" for origin, count in self._origins.items() if origin != "recorded"]
        if not elsewhere:
            return outcome
        said = f"of {self._origins.total()} replies {', '.join(elsewhere)}"
        return outcome.model_copy(update={"evidence": "; ".join(filter(None, (outcome.evidence, said)))})


class TracesWorld(ProjectWorld):
    """Reads the folder when it is created.

    Raises DataError for a folder that holds no imported traces, and for a task that cannot be one.
    """

    name: ClassVar[str] = "traces"

    class Config(ProjectSettings):
        path: Annotated[Outside, Field(min_length=1)]
        """Folder that `steptool traces import` wrote."""
        tasks: Outside = ""
        """Another file of tasks, such as a copy of the folder's with checks; the folder's own where it is empty. A task
        is known again by its question."""
        nearest: Annotated[float, Field(ge=0.5, le=1)] = 1.0
        """Least likeness of arguments to recorded ones, of texts by their letters, at which the reply to these is
        given; 1: only to the same arguments."""
        record: Annotated[Literal["off"], Field(exclude=True)] = "off"
        """All that is replied is a recording already."""

        @model_validator(mode="before")
        @classmethod
        def _tasks_of_the_folder(cls, values: Any) -> Any:
            if isinstance(values, dict) and isinstance(values.get("path"), str) and not values.get("tasks"):
                return {**values, "tasks": f"{values['path']}/{imported.TASKS}"}
            return values

    @staticmethod
    def content(config: TracesWorld.Config) -> str:
        """Hashes of the tasks and of the folder. Raises DataError where there is none."""
        imported.refuse_unless_imported(Path(config.path))
        return f"{ProjectWorld.tasks_content(config)}, traces {imported.content(Path(config.path))}"

    def __init__(self, config: Config, seed: int) -> None:
        self._replayed = ReplayToolbox(Path(config.path), config.nearest)
        super().__init__(config, seed, self._replayed)

    def open(self, task: Task, seed: int) -> ReplayedSession:
        """A fresh session. `seed` changes nothing."""
        connection = self._replayed.connect(task.query)
        _, checks, judges = self.parts(task, connection)
        return ReplayedSession(task, connection, checks, judges)

    def refuse_unless_callable(self, check: StateCheck, where: str) -> None:
        raise DataError(
            f"a check of kind state asks {check.tool} once the attempt has ended, and recorded replies do not know "
            "what it changed",
            where=where,
            fix="check the answer (kind text, number or set) or the calls (a function in the file `world.checks`); or "
            "take the tools themselves as world: functions, openapi or mcp",
        )

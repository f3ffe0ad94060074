"""One attempt: its calls through a connection of its own, and the verdict while the state that they made is alive."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from steptool.core.types import Observation, Outcome, Task, ToolCall, content_hash
from steptool.worlds.project.checks import Check
from steptool.worlds.project.toolbox import Called, Connection, Judges
from steptool.worlds.project.verdict import verdict


class ProjectSession:
    """All `checks` must hold; `judges` runs those that are functions of the project. `changes_state` says of a tool by
    its name what its toolbox says."""

    def __init__(
        self,
        task: Task,
        connection: Connection,
        checks: Sequence[Check],
        judges: Judges | None = None,
        changes_state: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self._task, self._connection, self._checks, self._judges = task, connection, checks, judges
        self._changes_state = changes_state
        self._calls: list[Called] = []
        self._changes: list[tuple[str, dict[str, Any]]] = []

    async def call(self, call: ToolCall) -> Observation:
        if self._task.tool(call.name) is None:
            offered = ", ".join(tool.name for tool in self._task.tools)
            observation = failure("unknown_tool", f"no tool {call.name}, use {offered}")
        else:
            observation = await self._connection.call(call)
            if self._changes_state(call.name):
                self._changes.append((call.name, call.arguments))
        self._calls.append(Called(call.name, call.arguments, observation.text, observation.error))
        return observation

    def state(self) -> str | None:
        """The calls that may have changed what later ones reply, in their order."""
        return content_hash(self._changes) if self._changes else None

    async def say(self, message: str) -> str | None:
        return None

    async def close(self, answer: str | None) -> Outcome:
        try:
            return await verdict(
                self._checks, answer, self._task, self._calls, connection=self._connection, judges=self._judges
            )
        finally:
            await self._connection.close()
            if self._judges is not None and self._judges is not self._connection:
                await self._judges.close()


def failure(kind: str, message: str) -> Observation:
    return Observation(text=json.dumps({"error": message}, ensure_ascii=False), error=kind)

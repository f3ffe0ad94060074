"""One attempt, made by the agent itself; the verdict is by its answer and by the calls that it made.

Where `call` is used in place of `run`, the agent is led (`led`).
"""

from __future__ import annotations

from collections.abc import Sequence

from steptool.core.types import Observation, Task, ToolCall
from steptool.worlds.agent.led import Run
from steptool.worlds.project.checks import Check
from steptool.worlds.project.session import ProjectSession
from steptool.worlds.project.toolbox import Called, Connection, Judges


class AgentSession(ProjectSession):
    """Acts by itself (`steptool.worlds.base.Acts`). `run` starts its agent with the query of the task."""

    def __init__(
        self, task: Task, connection: Connection, checks: Sequence[Check], judges: Judges | None, run: Run
    ) -> None:
        super().__init__(task, connection, checks, judges)
        self._run = run

    async def run(self, base_url: str, key: str) -> str | None:
        """Raises what `Agents.run` raises."""
        return await self._run(base_url, key)

    def saw(self, calls: Sequence[tuple[ToolCall, Observation]]) -> None:
        self._calls = [Called(call.name, call.arguments, seen.text, seen.error) for call, seen in calls]

"""One attempt, made by the agent itself; the verdict is by its answer and by the calls that it made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from steptool.core.errors import WorldError
from steptool.core.types import Observation, Task, ToolCall
from steptool.worlds.agent.agents import Agents, environment
from steptool.worlds.project.checks import Check
from steptool.worlds.project.session import ProjectSession
from steptool.worlds.project.toolbox import Called, Connection, Judges

ONLY_INSIDE = "the tools of an agent run inside of it: nothing here can call them"


class AgentConnection:
    """To tools that only the agent can call."""

    async def call(self, call: ToolCall) -> Observation:
        raise WorldError(
            ONLY_INSIDE, where=call.name, fix="search: {use: agent} in params.yaml has the agent call them"
        )

    async def close(self) -> None:
        """Nothing was started."""


class AgentSession(ProjectSession):
    """Acts by itself (`steptool.worlds.base.Acts`). `log`: where its output goes."""

    def __init__(
        self,
        task: Task,
        connection: Connection,
        checks: Sequence[Check],
        judges: Judges | None,
        agents: Agents,
        log: Path,
        timeout_s: float,
    ) -> None:
        super().__init__(task, connection, checks, judges)
        self._agents, self._log, self._timeout_s = agents, log, timeout_s

    async def run(self, base_url: str, key: str) -> str | None:
        """Run the agent with the query of the task. See `Agents.run`."""
        return await self._agents.run(
            self._task.query, environment=environment(base_url, key), log=self._log, timeout_s=self._timeout_s
        )

    def saw(self, calls: Sequence[tuple[ToolCall, Observation]]) -> None:
        self._calls = [Called(call.name, call.arguments, seen.text, seen.error) for call, seen in calls]

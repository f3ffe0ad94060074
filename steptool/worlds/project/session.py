"""One attempt: its calls through a connection of its own, and the verdict while the state that they made is alive."""

from __future__ import annotations

import json

from steptool.core.errors import WorldError
from steptool.core.types import AnswerCheck, Observation, Outcome, Task, ToolCall
from steptool.worlds.answers import NO_ANSWER, outcome_of
from steptool.worlds.project.toolbox import Called, Connection, Judges


class ProjectSession:
    """`check` is a right answer, or the name of a check function of the project, which `judges` runs."""

    def __init__(
        self, task: Task, connection: Connection, check: AnswerCheck | str | None, judges: Judges | None = None
    ) -> None:
        self._task, self._connection, self._check, self._judges = task, connection, check, judges
        self._calls: list[Called] = []

    async def call(self, call: ToolCall) -> Observation:
        if self._task.tool(call.name) is None:
            offered = ", ".join(tool.name for tool in self._task.tools)
            observation = failure("unknown_tool", f"no tool {call.name}, use {offered}")
        else:
            observation = await self._connection.call(call)
        self._calls.append(Called(call.name, call.arguments, observation.text, observation.error))
        return observation

    async def say(self, message: str) -> str | None:
        return None

    async def close(self, answer: str | None) -> Outcome:
        try:
            if isinstance(self._check, str):
                return NO_ANSWER if answer is None else await self._judged(answer, self._check)
            return outcome_of(self._check, answer)
        finally:
            await self._connection.close()
            if self._judges is not None and self._judges is not self._connection:
                await self._judges.close()

    async def _judged(self, answer: str, check: str) -> Outcome:
        if self._judges is None:
            raise WorldError(f"nothing here can run the check {check}", where=f"task {self._task.id}")
        solved = await self._judges.judge(check, answer, self._calls)
        return Outcome(solved=solved, evidence=f"as {check} says")


def failure(kind: str, message: str) -> Observation:
    return Observation(text=json.dumps({"error": message}, ensure_ascii=False), error=kind)

"""A session of one turn: calls are written down, not run, and judged when the attempt ends.

accepted     the calls are those that the task accepts (`answers`), in one action or one after the other
irrelevance  none was made, since no function helps
relevance    at least one was made
"""

from __future__ import annotations

from dataclasses import dataclass

from steptool.core.types import Observation, Outcome, Reference, Task, ToolCall
from steptool.worlds.bfcl.answers import Language, problem_of
from steptool.worlds.bfcl.records import Accepted, FunctionRow

RECEIVED = '{"status": "received"}'
"""The reply to a call of an offered tool: nothing is there that could run."""


@dataclass(frozen=True)
class SingleCase:
    task: Task
    functions: tuple[FunctionRow, ...]
    """As the benchmark describes them to its checker."""
    accepted: tuple[Accepted, ...] | None
    """None where it only counts whether anything is called."""
    language: Language

    @property
    def reference(self) -> Reference:
        names = dict.fromkeys(name for wanted in self.accepted or () for name in wanted)
        goal = "call what is accepted: " + str(list(self.accepted)) if self.accepted is not None else self._when
        return Reference(task_id=self.task.id, has_own_check=True, relevant_tools=tuple(names), goal=goal)

    @property
    def calls_nothing(self) -> bool:
        return self.accepted is None and "irrelevance" in self.task.group

    @property
    def _when(self) -> str:
        return "call nothing: no function helps" if self.calls_nothing else "call at least one function"

    def open(self) -> SingleSession:
        return SingleSession(self)


class SingleSession:
    def __init__(self, case: SingleCase, calls: tuple[ToolCall, ...] = ()) -> None:
        self._case, self._calls = case, list(calls)

    async def call(self, call: ToolCall) -> Observation:
        self._calls.append(call)
        if self._case.task.tool(call.name) is None:
            return Observation(text=f"there is no function {call.name}", error="unknown_tool")
        return Observation(text=RECEIVED)

    async def say(self, message: str) -> str | None:
        """None: nobody answers."""
        return None

    async def close(self, answer: str | None) -> Outcome:
        problem = self._problem()
        if not problem and answer is None:
            problem = "no answer"
        return Outcome(solved=0.0, evidence=problem) if problem else Outcome(solved=1.0, evidence="the calls made")

    def fork(self) -> SingleSession:
        return SingleSession(self._case, tuple(self._calls))

    def _problem(self) -> str:
        if self._case.accepted is not None:
            return problem_of(self._calls, self._case.accepted, self._case.functions, self._case.language)
        if self._case.calls_nothing:
            return f"{len(self._calls)} calls, though no function helps" if self._calls else ""
        return "" if self._calls else "no call was made"

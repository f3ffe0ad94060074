"""One attempt at one request: a copy of the office, the offered tools, and the verdict by what they changed."""

from __future__ import annotations

import json

from steptool.core.types import Observation, Outcome, Task, ToolCall, content_hash
from steptool.worlds.workbench.office import COMPARED, Office
from steptool.worlds.workbench.toolbox import after, execute
from steptool.worlds.workbench.tools.base import Refused


class WorkBenchSession:
    """`office` is as every session begins, `target` as the true calls leave it."""

    def __init__(self, task: Task, office: Office, target: Office) -> None:
        self._task, self._begin, self._target = task, office, target
        self._offered = [tool.name for tool in task.tools]
        self._office = office.copy()
        self._calls: tuple[ToolCall, ...] = ()

    async def call(self, call: ToolCall) -> Observation:
        return self.reply(call)

    async def say(self, message: str) -> str | None:
        """None: nobody answers."""
        return None

    async def close(self, answer: str | None) -> Outcome:
        return self.outcome(answer)

    def fork(self) -> WorkBenchSession:
        """A session of its own that goes on from the present state."""
        other = WorkBenchSession(self._task, self._begin, self._target)
        other._office, other._calls = self._office.copy(), self._calls
        return other

    def state(self) -> str | None:
        """A hash of what the calls changed so far, None where nothing is changed."""
        changed = self._office.differs(self._begin)
        return content_hash([[table, self._office.rows(table)] for table in changed]) if changed else None

    def reply(self, call: ToolCall) -> Observation:
        """`call` for callers without an event loop: a text as the tool says it, anything else as JSON."""
        self._calls += (call,)
        try:
            reply = execute(self._office, call.name, call.arguments, self._offered)
        except Refused as refusal:
            return Observation(text=str(refusal), error=refusal.kind)
        return Observation(text=reply if isinstance(reply, str) else json.dumps(reply, ensure_ascii=False))

    def outcome(self, answer: str | None) -> Outcome:
        """`close` for callers without an event loop. What is answered does not count, only that something is."""
        if answer is None:
            return Outcome(solved=0.0, evidence="no answer")
        left = after(self._begin, (call for call in self._calls if call.name in self._offered))
        wrong = left.differs(self._target)
        changed = {table for table in COMPARED if self._target.rows(table) != self._begin.rows(table)}
        expected = f"changes of {', '.join(sorted(changed))}" if changed else "no change"
        found = f"differs in {', '.join(wrong)}" if wrong else "as the true calls leave it"
        return Outcome(solved=float(not wrong), evidence=f"expected {expected}; the office {found}")

"""One attempt at one task: the store's replies, with the task's hiccup in their way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from steptool.core.types import Observation, Outcome, ToolCall
from steptool.worlds.answers import outcome_of
from steptool.worlds.mini.execute import execute, failure
from steptool.worlds.mini.plans import PASSING, Case, Hiccup
from steptool.worlds.mini.schema import Api, Provider
from steptool.worlds.mini.store import Store


class CaseSession(ABC):
    """What sessions of short and of long tasks share. Replies depend on the task and on what was called before in this
    session, on nothing else."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._offered = {tool.name for tool in case.task.tools}

    async def call(self, call: ToolCall) -> Observation:
        return self.reply(call)

    async def say(self, message: str) -> str | None:
        """None: nobody answers."""
        return None

    async def close(self, answer: str | None) -> Outcome:
        return self.outcome(answer)

    def reply(self, call: ToolCall) -> Observation:
        """`call` for callers without an event loop."""
        if call.name not in self._offered:
            return failure("unknown_tool", "unknown tool, use one that is offered")
        return self._reply(call)

    def outcome(self, answer: str | None) -> Outcome:
        """`close` for callers without an event loop. Only the answer counts: calls change nothing here."""
        return outcome_of(self._case.reference.answer_check, answer)

    @abstractmethod
    def _reply(self, call: ToolCall) -> Observation:
        """To a call of a tool that is offered."""


class MiniSession(CaseSession):
    """A session of a short task."""

    def __init__(self, store: Store, case: Case, apis: dict[str, tuple[Provider, Api]]) -> None:
        super().__init__(case)
        self._store, self._apis = store, apis
        self._called: set[str] = set()

    def fork(self) -> MiniSession:
        twin = MiniSession(self._store, self._case, self._apis)
        twin._called |= self._called
        return twin

    def _reply(self, call: ToolCall) -> Observation:
        name, arguments = call.name, call.arguments
        provider, api = self._apis[name]
        hiccup = self._case.hiccup
        fault = self._fault(hiccup, name, api, arguments) if hiccup else None
        self._called.add(name)
        if fault:
            return fault
        observation = execute(self._store, provider, api, arguments)
        if hiccup and hiccup.kind == "moved" and api.kind in ("find", "list"):
            return observation.model_copy(
                update={"text": observation.text.replace(f'"{hiccup.new}"', f'"{hiccup.old}"')}
            )
        return observation

    def _fault(self, hiccup: Hiccup, name: str, api: Api, arguments: dict[str, Any]) -> Observation | None:
        if hiccup.kind == "moved" and api.by == "id" and arguments.get(api.key) == hiccup.old:
            return failure("unknown_id", f"id moved, use {hiccup.new}")
        if name != hiccup.api:
            return None
        if hiccup.kind in PASSING and name not in self._called:
            return failure(hiccup.kind, PASSING[hiccup.kind])
        if hiccup.kind == "missing_argument" and hiccup.argument not in arguments:
            return failure("missing_argument", f"missing argument: {hiccup.argument}, use {hiccup.new}")
        if hiccup.kind == "code":
            value = arguments.get(hiccup.argument)  # of any type that JSON has
            if not (isinstance(value, str) and value in self._store.codes):
                return failure("invalid_argument", f"unknown {hiccup.argument}, use its code")
        return None

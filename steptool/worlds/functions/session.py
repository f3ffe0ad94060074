"""One attempt: calls of the functions, a new object for them where they are methods, and the verdict."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pydantic_core import to_json

from steptool.core.errors import WorldError, describe
from steptool.core.types import AnswerCheck, Observation, Outcome, Task, ToolCall
from steptool.worlds.answers import outcome_of
from steptool.worlds.functions.thread import OwnThread, Raised
from steptool.worlds.functions.tools import FunctionTool, WrongArguments


@dataclass(frozen=True)
class Called:
    """A call that was made, as a check of the project sees it."""

    name: str
    arguments: dict[str, Any]
    reply: str
    error: str | None


Judge = Callable[[str, list[Called], Any], Any]
"""A check of the project. It gets the answer, the calls, and the object whose methods the tools are (None where they
are functions), and returns True or False, or how far the task is solved, from 0 to 1."""


class FunctionsSession:
    """`home` is where the functions are found: a module, or a class, of which the session makes an object."""

    def __init__(
        self, task: Task, tools: Mapping[str, FunctionTool], home: ModuleType | type, check: AnswerCheck | Judge | None
    ) -> None:
        self._task, self._tools, self._home, self._check = task, tools, home, check
        self._state: Any = None
        self._calls: list[Called] = []
        self._thread = OwnThread()

    async def call(self, call: ToolCall) -> Observation:
        observation = await self._answered(call)
        self._calls.append(Called(call.name, call.arguments, observation.text, observation.error))
        return observation

    async def say(self, message: str) -> str | None:
        return None

    async def close(self, answer: str | None) -> Outcome:
        try:
            if answer is not None and callable(self._check):
                return await self._judged(answer, self._check)
            return outcome_of(None if callable(self._check) else self._check, answer)
        finally:
            self._thread.end()

    async def _answered(self, call: ToolCall) -> Observation:
        if self._task.tool(call.name) is None:
            offered = ", ".join(tool.name for tool in self._task.tools)
            return _failure("unknown_tool", f"no tool {call.name}, use {offered}")
        try:
            arguments = self._tools[call.name].read(call.arguments)
        except WrongArguments as wrong:
            return _failure("invalid_argument", str(wrong))
        try:
            text = await self._thread.run(lambda: getattr(self._found(), call.name)(**arguments), _as_text)
        except Raised as raised:
            if isinstance(raised.fault, WorldError):
                raise raised.fault from raised
            return _failure("tool_error", describe(raised.fault))
        return Observation(text=text)

    async def _judged(self, answer: str, check: Judge) -> Outcome:
        name, where = getattr(check, "__name__", ""), f"world functions, task {self._task.id}"
        try:
            verdict = await self._thread.run(lambda: check(answer, self._calls, self._found() and self._state))
        except Raised as raised:
            raise WorldError(f"its check {name} raised {describe(raised.fault)}", where=where) from raised
        if not isinstance(verdict, bool | int | float) or not 0 <= verdict <= 1:
            fix = "return True or False, or a number from 0 to 1"
            raise WorldError(f"its check {name} returned {verdict!r:.80}", where=where, fix=fix)
        return Outcome(solved=float(verdict), evidence=f"as {name} says")

    def _found(self) -> Any:
        """What the functions are called on. In the thread of the session, where the object is made too."""
        if isinstance(self._home, ModuleType):
            return self._home
        if self._state is None:
            try:
                self._state = self._home()
            except BaseException as fault:
                found = f"{self._home.__name__}() raised {describe(fault)}"
                raise WorldError(found, where="world functions", fix="mend it: it is made for each attempt") from fault
        return self._state


def _as_text(value: Any) -> str:
    """Raises TypeError or ValueError for what JSON cannot hold."""
    if inspect.isgenerator(value) or inspect.isasyncgen(value):  # which may have no end
        raise TypeError("a generator was returned, which JSON cannot hold; return a list")
    text = value if isinstance(value, str) else to_json(value).decode()
    return text.encode("utf-8", "replace").decode()


def _failure(kind: str, message: str) -> Observation:
    return Observation(text=json.dumps({"error": message}, ensure_ascii=False), error=kind)

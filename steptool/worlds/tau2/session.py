"""One attempt at a ticket: calls on databases of its own, judged by their state at the end.

    solved    every assertion of the task holds, and, where the task says so, every action of its solution was called

That is the rule of the benchmark's evaluators for environments and actions.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from steptool.core.errors import describe
from steptool.core.types import Observation, Outcome, Reference, Task, ToolCall
from steptool.worlds.tau2.package import Domain, call_class


@dataclass(frozen=True)
class Case:
    task: Task
    written: Any
    """The benchmark's own task."""
    domain: Domain

    @property
    def solution(self) -> list[ToolCall]:
        """The benchmark's own actions, those of the user included."""
        actions = self.written.evaluation_criteria.actions or []
        return [ToolCall(name=action.name, arguments=action.arguments) for action in actions]

    @property
    def reference(self) -> Reference:
        relevant = tuple(dict.fromkeys(call.name for call in self.solution if self.task.tool(call.name)))
        goal = "; ".join(map(_shown, self.written.evaluation_criteria.env_assertions or []))
        return Reference(task_id=self.task.id, has_own_check=True, relevant_tools=relevant, goal=goal)

    def environment(self) -> Any:
        """In the state that the task begins in."""
        made, state = self.domain.environment(), self.written.initial_state
        if state is not None:
            made.set_state(state.initialization_data, state.initialization_actions, state.message_history or [])
        return made


class Tau2Session:
    def __init__(self, case: Case) -> None:
        self._case, self._environment = case, case.environment()
        self._calls: list[Any] = []

    async def call(self, call: ToolCall) -> Observation:
        if self._case.task.tool(call.name) is None:
            return Observation(text=f"Error: Tool '{call.name}' not found.", error="unknown_tool")
        made = call_class()(name=call.name, arguments=call.arguments)
        self._calls.append(made)
        reply = self._environment.get_response(made)
        return Observation(text=reply.content, error="tool_error" if reply.error else None)

    async def say(self, message: str) -> str | None:
        """None: in solo mode nobody answers."""
        return None

    async def close(self, answer: str | None) -> Outcome:
        if answer is None:
            return Outcome(solved=0.0, evidence="no answer")
        wrong = self._unmet()
        return Outcome(solved=0.0, evidence=wrong) if wrong else Outcome(solved=1.0, evidence="every assertion holds")

    def fork(self) -> Tau2Session:
        other = Tau2Session.__new__(Tau2Session)
        other._case, other._calls = self._case, list(self._calls)
        other._environment = deepcopy(self._environment)
        return other

    def _unmet(self) -> str:
        """The first thing that the task demands and that is not so; empty where there is none."""
        criteria = self._case.written.evaluation_criteria
        demanded = {basis.value for basis in criteria.reward_basis}
        for assertion in criteria.env_assertions or [] if "ENV_ASSERTION" in demanded else []:
            try:
                holds = self._environment.run_env_assertion(assertion, raise_assertion_error=False)
            except Exception as error:  # noqa: BLE001 - of a state in which the question makes no sense
                return f"{_shown(assertion)}: {describe(error)}"
            if not holds:
                return f"not so: {_shown(assertion)}"
        for action in criteria.actions or [] if "ACTION" in demanded else []:
            if not any(action.compare_with_tool_call(call) for call in self._calls):
                return f"not called: {action.name}"
        return ""


def _shown(assertion: Any) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in assertion.arguments.items())
    return f"{assertion.func_name}({arguments}) is {assertion.assert_value}"

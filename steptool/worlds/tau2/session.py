"""One attempt: calls on databases of its own, a user where the domain has one, and a verdict on how it ended.

    ENV_ASSERTION   every assertion of the task holds over the state at the end
    ACTION          every action of its solution was called
    DB              the database is as it is after the actions of its solution
    COMMUNICATE     each text of the task stands in something that the agent said; case and commas do not count
    NL_ASSERTION    a judge has to tell: where all else is as demanded, there is no verdict

A task names those that it demands, and is solved where all of them hold: the rule of the benchmark's evaluators.
"""

from __future__ import annotations

from copy import copy, deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from steptool.core.errors import describe
from steptool.core.types import Observation, Outcome, Reference, Task, ToolCall
from steptool.worlds.tau2.dialogue import GREETING, UserModel
from steptool.worlds.tau2.package import imported
from steptool.worlds.tau2.service import TALK, Service
from steptool.worlds.tau2.telecom import Telecom

OVER = "The conversation is over. End the attempt."


@dataclass(frozen=True)
class Case:
    task: Task
    """Its query is empty where the user's first message is asked for later."""
    written: Any
    """The benchmark's own task."""
    domain: Telecom | Service

    @property
    def solution(self) -> list[ToolCall]:
        """The benchmark's own actions, those of the user included."""
        actions = self.written.evaluation_criteria.actions or []
        return [ToolCall(name=action.name, arguments=action.arguments) for action in actions]

    @property
    def reference(self) -> Reference:
        criteria, calls = self.written.evaluation_criteria, self.solution
        goal = [*map(_shown, criteria.env_assertions or [])]
        if "DB" in self.demanded:
            done = "; ".join(f"{call.name}({_listed(call.arguments)})" for call in calls)
            goal.append(f"the database is as after these calls: {done or 'none'}")
        if "COMMUNICATE" in self.demanded:
            goal += [f"{text!r} is said" for text in criteria.communicate_info or []]
        return Reference(
            task_id=self.task.id,
            has_own_check="NL_ASSERTION" not in self.demanded,
            relevant_tools=tuple(dict.fromkeys(call.name for call in calls if self.task.tool(call.name))),
            goal="; ".join(goal),
        )

    @property
    def scenario(self) -> str:
        """What the user is told. No policy sees it."""
        return str(self.written.user_scenario)

    @property
    def demanded(self) -> set[str]:
        return {basis.value for basis in self.written.evaluation_criteria.reward_basis}

    def environment(self) -> Any:
        """In the state that the task begins in."""
        made, state = self.domain.environment(), self.written.initial_state
        if state is not None:
            made.set_state(state.initialization_data, state.initialization_actions, state.message_history or [])
        return made

    @cached_property
    def meant(self) -> dict[str, str]:
        """What the benchmark's actions change in the database, those that fail included."""
        environment = self.environment()
        for call in self.solution:
            environment.get_response(_made(call))
        return self.domain.changes(environment)


@dataclass(frozen=True)
class Talks:
    """With whom a session talks: the part of a user, for `most` messages of that user."""

    model: UserModel
    most: int
    seed: int


class Tau2Session:
    def __init__(self, case: Case, query: str = "", user: Talks | None = None) -> None:
        """`query`: the user's first message."""
        self._case, self._environment, self._user = case, case.environment(), user
        self._calls: list[Any] = []
        self._heard: list[str] = [GREETING, query]
        """What agent and user said in turn."""
        self._is_over = user is None
        self._fault = ""
        """Why it cannot be solved any more."""

    async def call(self, call: ToolCall) -> Observation:
        if self._case.task.tool(call.name) is None:
            return Observation(text=f"Error: Tool '{call.name}' not found.", error="unknown_tool")
        if self._user is not None and self._is_over:
            return Observation(text=OVER, error="conversation_over")
        if call.name == TALK.name:
            return await self._talk(call.arguments)
        made = _made(call)
        self._calls.append(made)
        reply = self._environment.get_response(made)
        return Observation(text=reply.content, error="tool_error" if reply.error else None)

    async def say(self, message: str) -> str | None:
        """The user's next message; None where there is no user, or the user has ended the conversation. A message that
        gets no reply, because that comes too late, was never heard. Raises what `UserModel.reply` raises."""
        if self._user is None or self._is_over:
            return None
        heard = [*self._heard, message]
        reply: str | None = None
        if len(heard) > 2 * self._user.most:
            self._fault = f"the user has not ended the conversation after {self._user.most} messages"
        else:
            reply = await self._user.model.reply(self._case.scenario, heard, self._user.seed)
        self._is_over = reply is None
        self._heard = heard if reply is None else [*heard, reply]
        return reply

    async def close(self, answer: str | None) -> Outcome:
        if answer is None:
            return Outcome(solved=0.0, evidence="no answer")
        if wrong := self._fault or self._unmet(answer):
            return Outcome(solved=0.0, evidence=wrong)
        if "NL_ASSERTION" in self._case.demanded:
            asked = "; ".join(self._case.written.evaluation_criteria.nl_assertions or [])
            return Outcome(evidence=f"only a judge can tell whether {asked}")
        return Outcome(solved=1.0, evidence=f"all is as demanded: {', '.join(sorted(self._case.demanded))}")

    def fork(self) -> Tau2Session:
        other = copy(self)
        other._calls = list(self._calls)
        other._environment = deepcopy(self._environment)
        return other

    async def _talk(self, arguments: dict[str, Any]) -> Observation:
        message = arguments.get("message")
        if not isinstance(message, str) or not message.strip() or len(arguments) > 1:
            return Observation(text=f"{TALK.name} takes one argument, message, a text", error="invalid_argument")
        return Observation(text=await self.say(message) or OVER)

    def _unmet(self, answer: str) -> str:
        """The first thing that the task demands and that is not so; empty where there is none."""
        criteria, demanded = self._case.written.evaluation_criteria, self._case.demanded
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
        is_left_open = criteria.actions is None and criteria.env_assertions is None
        if "DB" in demanded and not is_left_open and (difference := self._difference()):
            return difference
        told = [text.lower().replace(",", "") for text in (*self._heard[::2], answer)]
        for text in criteria.communicate_info or [] if "COMMUNICATE" in demanded else []:
            if not any(text.lower() in each for each in told):
                return f"not said: {text}"
        return ""

    def _difference(self) -> str:
        """Of the database from what the benchmark's actions would have made of it; empty where there is none."""
        made, meant = self._case.domain.changes(self._environment), self._case.meant
        if wrong := sorted(key for key in made.keys() | meant.keys() if made.get(key) != meant.get(key)):
            return f"not as after the benchmark's actions: {', '.join(wrong)}"
        return ""


def _made(call: ToolCall) -> Any:
    return imported("data_model.message").ToolCall(name=call.name, arguments=call.arguments)


def _shown(assertion: Any) -> str:
    return f"{assertion.func_name}({_listed(assertion.arguments)}) is {assertion.assert_value}"


def _listed(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())

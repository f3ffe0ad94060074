"""A session of several turns. After each, state and replies are held against those of the ground truth.

    turn 1   the query         calls … and a message that ends the turn
    turn 2   reply of `say`    calls … and a message
    …        None after the last

    a turn with calls in the ground truth passes where at least one call was made in it,
        state     every public attribute of every object is what the ground truth's calls would have made of it,
        replies   and every reply that the ground truth's calls got in this turn was got, in this turn or before
    a turn without them (a function or a parameter is missing) is not judged; what was called in it stays done

That is the rule of the benchmark's `multi_turn_checker`, whose two comparisons are called here, after each turn
instead of afterwards. An attempt is solved where every turn passes and the last one was ended by an answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steptool.core.errors import describe
from steptool.core.types import Observation, Outcome, Reference, Task, Tool, ToolCall
from steptool.worlds.bfcl.backends import FAILED, Backends
from steptool.worlds.bfcl.package import checker, more_functions_prompt
from steptool.worlds.bfcl.records import Call
from steptool.worlds.solutions import DONE, Solution

NEXT = Tool(
    name="next_request",
    description=(
        "Tell the user what you did, once everything that they asked for so far is done or cannot be done. The reply is"
        " the user's next request, or that there is none."
    ),
    parameters={"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]},
)
"""What a policy calls to end a turn where it cannot send a message."""
NO_MORE = "The user has no further request. End the attempt."


@dataclass(frozen=True)
class Turn:
    text: str
    """What the user says."""
    truth: tuple[Call, ...]
    """Calls of the ground truth; empty where the turn cannot be done."""
    arriving: tuple[Tool, ...] = ()
    """Functions that are offered from here on."""

    @property
    def shown(self) -> str:
        """The ground truth in a line."""
        calls = [f"{call.name}({', '.join(map(repr, (*call.args, *call.arguments.items())))})" for call in self.truth]
        return "; ".join(calls) or "nothing can be done"


@dataclass(frozen=True)
class TurnsCase:
    task: Task
    turns: tuple[Turn, ...]
    functions: Mapping[str, Sequence[str]]
    """Class → names of its functions, those that arrive later included."""
    settings: Mapping[str, Mapping[str, Any]]
    """Class → what its object begins with."""
    long_context: bool

    @property
    def reference(self) -> Reference:
        called = dict.fromkeys(call.name for turn in self.turns for call in turn.truth)
        return Reference(
            task_id=self.task.id,
            has_own_check=True,
            relevant_tools=tuple(name for name in called if self.task.tool(name)),
            goal="\n".join(f"{turn.text} → {turn.shown}" for turn in self.turns),
        )

    @property
    def solution(self) -> Solution:
        """The ground truth as a policy would write it, which names all arguments."""
        backends, is_called = self.backends(), self.task.tool(NEXT.name) is not None

        def named(call: Call) -> ToolCall:
            return ToolCall(name=call.name, arguments=backends.named(call.name, call.args, call.arguments))

        turns = [[named(call) for call in turn.truth] for turn in self.turns]
        ends = ToolCall(name=NEXT.name, arguments={"message": DONE}) if is_called else None
        return Solution(self.task, turns, self.open, ends)

    def open(self) -> TurnsSession:
        return TurnsSession(self)

    def backends(self) -> Backends:
        return Backends(self.functions, self.settings, long_context=self.long_context)


def text_of(said: str, arriving: Sequence[Tool]) -> str:
    """The text of a turn in which functions arrive: their descriptions, and the benchmark's sentence about them."""
    if not arriving:
        return said
    listed = [tool.model_dump(include={"name", "description", "parameters"}) for tool in arriving]
    return "\n".join(filter(None, (json.dumps(listed, ensure_ascii=False), more_functions_prompt(), said)))


class TurnsSession:
    def __init__(self, case: TurnsCase) -> None:
        self._case = case
        self._made, self._meant = case.backends(), case.backends()
        self._turn = 0
        self._accepted = {tool.name for tool in case.task.tools} | {call.name for call in case.turns[0].truth}
        """Names of the functions offered so far, and those that the ground truth calls before they are offered, as in
        one task of the benchmark."""
        self._calls = 0
        """In the present turn."""
        self._replies: list[str] = []
        """To all calls so far."""
        self._fault = ""
        """What is wrong with the first turn that did not pass."""

    async def call(self, call: ToolCall) -> Observation:
        if call.name not in self._accepted:
            return self._replied(f"{FAILED}name {call.name!r} is not defined", "unknown_tool")
        if call.name == NEXT.name:
            return Observation(text=await self.say("") or NO_MORE)
        if self._is_over:
            return Observation(text=NO_MORE, error="no_request")
        return self._replied(text := self._made.run(call.name, call.arguments), error_of(text))

    async def say(self, message: str) -> str | None:
        """End the turn. None after the last."""
        following = self._turn + 1
        if self._is_over:
            return None
        self._judge()
        self._turn, self._calls = following, 0
        if following == len(self._case.turns):
            return None
        turn = self._case.turns[following]
        self._accepted |= {tool.name for tool in turn.arriving} | {call.name for call in turn.truth}
        return turn.text

    async def close(self, answer: str | None) -> Outcome:
        last = len(self._case.turns) - 1
        if answer is not None and self._turn == last:
            self._judge()
        if self._fault:
            return Outcome(solved=0.0, evidence=self._fault)
        if self._turn < last:
            return Outcome(solved=0.0, evidence=f"ended in turn {self._turn + 1} of {last + 1}")
        if answer is None:
            return Outcome(solved=0.0, evidence="no answer")
        return Outcome(solved=1.0, evidence=f"state and replies of {last + 1} turns")

    def fork(self) -> TurnsSession:
        other = TurnsSession.__new__(TurnsSession)
        other.__dict__ |= self.__dict__
        other._made, other._meant = self._made.fork(), self._meant.fork()
        other._accepted, other._replies = set(self._accepted), list(self._replies)
        return other

    @property
    def _is_over(self) -> bool:
        return self._turn == len(self._case.turns)

    def _replied(self, text: str, error: str | None) -> Observation:
        self._calls += 1
        self._replies.append(text)
        return Observation(text=text, error=error)

    def _judge(self) -> None:
        """Make the ground truth's calls of the present turn, and compare."""
        truth = self._case.turns[self._turn].truth
        replies = [self._meant.run(call.name, call.arguments, call.args) for call in truth]
        if self._fault or not truth:
            return
        self._fault = self._difference(replies)
        if self._fault:
            self._fault = f"turn {self._turn + 1} of {len(self._case.turns)}: {self._fault}"

    def _difference(self, replies: list[str]) -> str:
        """Of the present turn from the ground truth, which got `replies`; empty where it passes."""
        if not self._calls:
            return "no call was made"
        try:
            found = checker("state_checker")(self._made.objects, self._meant.objects)
        except Exception as error:  # noqa: BLE001 - an attribute that only a call makes, a folder within itself
            return f"the state is another: {describe(error)}"
        if found["valid"]:
            found = checker("response_checker")(self._replies, replies, self._turn)
        return "" if found["valid"] else str(found["error_message"])


def error_of(text: str) -> str | None:
    """Kind of failure of a reply: `exception` where the method raised, `tool_error` where it replied with an error."""
    if text.startswith(FAILED):
        return "exception"
    return "tool_error" if text.startswith('{"error":') else None

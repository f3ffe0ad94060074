"""Depth-first search over decisions (ToolLLM, arXiv 2307.16789): where a branch leads nowhere, take actions back and
ask for others.

    prompt ─ find ─ get ─ gave up          the last `back` actions are taken back, and at that place the policy is
                └─ note · list ─ answer    told what it did there before

The first branch is what `chain` does. The first answer ends the search. Every action that is sampled, and every one
that is carried out again to come back to a place, counts against one budget, the chain's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from steptool.core.fields import Positive, Settings
from steptool.core.messages import GAVE_UP
from steptool.core.types import Action, Step, StopReason, Trajectory
from steptool.formats.text import shorten
from steptool.rollouts.base import Attempt
from steptool.rollouts.branch import Branch
from steptool.rollouts.ending import Ending

MOST_OF_AN_ACTION = 120
"""Characters of an action that a note shows."""


class Dfsdt:
    name: ClassVar[str] = "dfsdt"

    class Config(Settings):
        children: Positive = 2
        """Most actions that are tried at one place."""
        back: Positive = 2
        """How many actions are taken back where the policy gives up, giving up included. Where a branch ends otherwise
        it is the last one."""
        failures: Positive = 3
        """A branch is given up after so many actions in a row that failed."""
        budget: Positive | None = None
        """Actions of the whole search, those included that are carried out again to come back to a place; None takes
        `sample.max_calls`, which bounds each branch in any case."""

    def __init__(self, config: Config) -> None:
        self.config = config

    async def attempt(self, attempt: Attempt) -> Sequence[Trajectory]:
        """The branch that answered first, else the last one; then the others in their order."""
        tree = _Tree(attempt, self.config)
        try:
            found = await tree.grow()
        finally:
            await tree.leave()
        answer = next((each for each in found if answers(each)), found[-1])
        return [answer, *(each for each in found if each is not answer)]


@dataclass
class _Place:
    """Where branches part: before an action."""

    tried: list[Action] = field(default_factory=list)
    spare: Branch | None = None
    """To go on from here once more; None where nothing more is to be tried."""


class _Tree:
    def __init__(self, attempt: Attempt, config: Dfsdt.Config) -> None:
        self._attempt, self._config = attempt, config
        self._left = config.budget or attempt.conditions.sampling.max_calls
        self._acted = 0
        self._branch = Branch(attempt)
        """The one that grows."""
        self._path: list[_Place] = []
        """The places of that branch, from the first action on."""

    async def grow(self) -> list[Trajectory]:
        """Every branch, in the order in which they ended. The last has answered, or met a fault, or nothing is left
        that could be tried."""
        found: list[Trajectory] = []
        ending = self._branch.begin()
        self._path.append(_Place())
        while True:
            if ending is None:
                ending = await self._down()
            if ending.reason.broken or not self._is_known():
                found.append(await self._branch.end(ending))
                if answers(found[-1]) or found[-1].stop_reason.broken:  # its session may break as it is closed
                    return found
            await self._branch.leave()
            if not await self._back(ending):
                return found
            ending = await self._begin_again()

    async def leave(self) -> None:
        """Close the sessions that are still open."""
        await asyncio.gather(self._branch.leave(), self._cut(0))

    async def _down(self) -> Ending:
        """Act until the branch ends."""
        branch = self._branch
        while True:
            place = self._path[-1]
            if self._left > 1 and len(place.tried) + 1 < self._config.children:
                twin = branch.twin()
                if isinstance(twin, Ending):
                    return twin
                place.spare = twin
            number, depth = self._acted, len(branch.steps)
            self._acted, self._left = self._acted + 1, self._left - 1
            ending = await branch.act(number, note_of(place.tried))
            before = list(place.tried)
            place.tried += [step.action for step in branch.steps[depth:]]
            if ending is not None:
                return ending
            if self._left == 0 or is_in(place.tried[-1], before) or leads_nowhere(branch.steps, self._config.failures):
                return Ending(StopReason.call_budget)
            self._path.append(_Place())

    def _is_known(self) -> bool:
        """Whether the branch has no action where others have: with what the policy was told, no room was left."""
        return len(self._branch.steps) < len(self._path) and bool(self._path[-1].tried)

    async def _back(self, ending: Ending) -> bool:
        """Take actions back, up to a place from which the budget lets another be tried. False where there is none."""
        depth = len(self._branch.steps)
        gave_up = ending.reason in (StopReason.gave_up, StopReason.finished)  # the latter in words
        taken = self._config.back if gave_up else 1
        await self._cut(max(depth - taken + 1, min(depth, 1)))
        while self._path:
            spare = self._path[-1].spare
            if spare is not None and spare.calls_again < self._left:
                return True
            await self._cut(len(self._path) - 1)
        return False

    async def _begin_again(self) -> Ending | None:
        """Go on from the last place of the path. None where an action can follow."""
        place = self._path[-1]
        assert place.spare is not None, "_back found one"
        self._branch, place.spare = place.spare, None
        self._left -= self._branch.calls_again
        before = self._branch.steps
        ending = await self._branch.begin_again()
        if self._branch.steps != before:  # the world replies otherwise: nobody has been here
            await self._cut(len(self._branch.steps))
            self._path.append(_Place())
        return ending

    async def _cut(self, length: int) -> None:
        """Leave the places of the path from this one on."""
        gone, self._path = self._path[length:], self._path[:length]
        await asyncio.gather(*(place.spare.leave() for place in gone if place.spare is not None))


def answers(branch: Trajectory) -> bool:
    """Whether the policy answered, and did not say that it cannot, which formats without `Finish` do in words."""
    return branch.stop_reason is StopReason.finished and str(branch.answer).strip() != GAVE_UP


def leads_nowhere(steps: Sequence[Step], failures: int) -> bool:
    """Whether the last so many actions all failed: they could not be read, every call of them met an error, or they
    brought what the same action had brought before."""
    last = range(len(steps) - failures, len(steps))
    return last[0] >= 0 and all(_failed(steps[index], steps[:index]) for index in last)


def _failed(step: Step, before: Sequence[Step]) -> bool:
    errors = [observation.error is not None for observation in step.observations]
    if step.action.unreadable is not None or (errors and all(errors)):
        return True
    came = (step.observations, step.reply)
    return any(came == (other.observations, other.reply) and is_in(step.action, [other.action]) for other in before)


def is_in(action: Action, others: Sequence[Action]) -> bool:
    """Whether one of the others does the same, whatever it thinks. What cannot be read is all thought."""
    return any(_done(action) == _done(other) for other in others)


def _done(action: Action) -> Action:
    return action if action.unreadable is not None else action.model_copy(update={"thought": ""})


def note_of(tried: Sequence[Action]) -> str:
    """What the policy is told at a place where it has been: what it did there. Empty where it did nothing yet."""
    if not tried:
        return ""
    done = [f"- {shorten(_text_of(action), MOST_OF_AN_ACTION)}" for action in tried]
    return "\n".join(["You did this here before, and it led nowhere:", *done, "Do something else."])


def _text_of(action: Action) -> str:
    if action.message is not None:
        return f"said: {action.message}"
    if action.unreadable is not None:
        return "wrote what could not be read"
    return ", ".join(f"{call.name} {json.dumps(call.arguments, ensure_ascii=False)}" for call in action.calls)

"""Demonstrations of a benchmark's own solutions, for worlds whose tasks come with one.

solution   the calls of each turn; a turn but the last ends by a message, or by the call that stands for one
flawed     the same without its last call, which the world then judges as unsolved
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from steptool.core.errors import InputError
from steptool.core.types import (
    FINISH,
    Action,
    Revision,
    Step,
    StopReason,
    Task,
    ToolCall,
    Trajectory,
    content_hash,
)
from steptool.worlds.base import Session

DONE = "Done."
"""What is said at the end of each turn."""


@dataclass(frozen=True)
class Solution:
    task: Task
    turns: Sequence[Sequence[ToolCall]]
    open: Callable[[], Session]
    next_turn: ToolCall | None = None
    """The call that ends a turn, where it is no message."""

    @property
    def can_be_shown(self) -> bool:
        """A demonstration calls nothing but what its task offers from the beginning."""
        return all(self.task.tool(call.name) for turn in self.turns for call in turn)

    @property
    def without_the_last(self) -> list[list[ToolCall]]:
        turns = [list(turn) for turn in self.turns]
        last = max((number for number, turn in enumerate(turns) if turn), default=None)
        if last is not None:
            del turns[last][-1]
        return turns


def demonstrate(solutions: Sequence[Solution], count: int, flawed: float, seed: int, world: str) -> list[Trajectory]:
    """The first `count` solutions that can be shown, of which round(flawed * count) end unsolved; none where there are
    none at all, as in a world without training tasks.

    Raises InputError where there are fewer than `count`, or fewer that would end unsolved.
    """
    shown = [solution for solution in solutions if solution.can_be_shown]
    if not shown:
        return []
    if count > len(shown):
        raise InputError(
            f"demonstrations.count: {count} is above the {len(shown)} training tasks of world {world} that have one",
            where="params.yaml",
            fix=f"lower demonstrations.count to at most {len(shown)}, or give the world more training tasks",
        )
    return asyncio.run(_demonstrate(shown[:count], round(flawed * count), seed, world))


async def _demonstrate(shown: Sequence[Solution], flawed: int, seed: int, world: str) -> list[Trajectory]:
    done = [await _trajectory(solution, solution.turns, seed) for solution in shown]
    places = list(range(len(shown)))
    Random(f"{world}-demonstrations:{seed}").shuffle(places)
    for place in places:
        if flawed and (cut := await _trajectory(shown[place], shown[place].without_the_last, seed)).outcome.solved == 0:
            done[place] = cut
            flawed -= 1
    if flawed:
        fix = "lower demonstrations.flawed"
        raise InputError(f"{flawed} demonstrations too few end unsolved", where="params.yaml", fix=fix)
    return done


async def _trajectory(solution: Solution, turns: Sequence[Sequence[ToolCall]], seed: int) -> Trajectory:
    session, steps = solution.open(), []
    for number, turn in enumerate(turns):
        is_last = number + 1 == len(turns)
        ends = [] if is_last or solution.next_turn is None else [solution.next_turn]
        for call in (*turn, *ends):
            steps.append(Step(action=Action(calls=(call,)), observations=(await session.call(call),)))
        if not is_last and solution.next_turn is None:
            steps.append(Step(action=Action(message=DONE), reply=await session.say(DONE)))
    steps.append(Step(action=Action(calls=(ToolCall(name=FINISH, arguments={"answer": DONE}),))))
    outcome = await session.close(DONE)
    said = [step.action.model_dump() for step in steps]
    return Trajectory.create(
        task_id=solution.task.id,
        steps=tuple(steps),
        stop_reason=StopReason.finished,
        answer=DONE,
        outcome=outcome,
        policy=Revision(name="expert", revision=content_hash(said)),
        conditions=None,
        seed=seed,
    )

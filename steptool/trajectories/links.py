"""Which reply a later step used: the links that credit flows along.

A step makes one move, or several at the same time: calls, a message to the user, or a text that could not be read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from steptool.core.types import FINISH, Action, Observation, StopReason, ToolCall, Trajectory
from steptool.trajectories import words as v

COPY_VALUES = 3
"""If a reply has at least this many new values, a text that holds all of them copies the reply and does not use it."""


@dataclass(frozen=True)
class Move:
    """One of the things that a step did at the same time."""

    step: int
    """Index of its step."""
    action: Action
    """The whole action of that step."""
    call: ToolCall | None
    """None for a message and for a text that could not be read."""
    observation: Observation | None
    """What came back: a tool's reply, or the user's. None where the attempt ended."""

    @property
    def arguments(self) -> dict[str, Any]:
        return self.call.arguments if self.call is not None else {}


def moves_of(trajectory: Trajectory) -> list[Move]:
    """All moves of a trajectory, in order; at least one for each step."""
    moves = []
    for index, step in enumerate(trajectory.steps):
        replies: tuple[Observation | None, ...] = step.observations
        if step.reply is not None:
            replies = (Observation(text=step.reply),)
        calls = step.action.calls or (None,)
        for call, reply in zip(calls, replies or (None,) * len(calls), strict=True):
            moves.append(Move(index, step.action, call, reply))
    return moves


def fresh_values(moves: Sequence[Move], known: str = "") -> list[list[str]]:
    """For each move, the fresh values of its reply: those that nothing before it has shown. A value is not fresh if it
    is in the text `known`, in the move's own arguments, or if an earlier reply gave it as a value of its own (`16` is
    still fresh after `16 June`).
    """
    given, fresh = v.runs(known), []
    seen: set[str] = set()
    for move in moves:
        asked = v.runs(move.arguments)
        found = v.values(move.observation.text) if move.observation else []
        fresh.append([value for value in found if value not in seen and value not in given and value not in asked])
        seen.update(found)
    return fresh


def used_moves(text: str, fresh: Sequence[Sequence[str]], *, copies_count: bool = False) -> list[int]:
    """Indices of the moves whose values of `fresh` stand in `text`, one argument or answer.

    `copies_count` accepts a text that holds a whole reply, as a correct answer may.
    """
    held_by = v.run(text)
    used = []
    for index, found in enumerate(fresh):
        held = sum(value in held_by for value in found)
        is_copy = held == len(found) >= COPY_VALUES
        if held and (copies_count or not is_copy):
            used.append(index)
    return used


def argument_links(
    moves: Sequence[Move],
    fresh: Sequence[Sequence[str]],
    declares: Callable[[str, str], bool] = lambda tool, argument: True,
) -> list[list[int]]:
    """Per move, the moves of earlier steps whose fresh values stand in its arguments, or in its message.

    `declares(tool, argument)` says whether a tool has such an argument. One that the tool would ignore uses nothing.
    """
    links: list[list[int]] = []
    for move in moves:
        earlier = [values for other, values in zip(moves, fresh, strict=True) if other.step < move.step]
        said: list[Any] = [move.action.message or ""]
        if move.call is not None and move.call.name != FINISH:
            name = move.call.name
            said = [value for key, value in move.call.arguments.items() if declares(name, key)]
        links.append(sorted({source for leaf in v.leaves(said) for source in used_moves(leaf, earlier)}))
    return links


def is_grounded(trajectory: Trajectory, query: str) -> bool:
    """Whether the attempt ends with an answer that holds a value which a reply was first to show.

    What failed shows nothing. An answer in words of the query, such as the better of two things that it names, is not
    grounded by this, and one that holds all values of a reply copies it (COPY_VALUES).
    """
    if trajectory.stop_reason is not StopReason.finished:
        return False
    moves = moves_of(trajectory)
    shown = [
        [] if move.observation is None or move.observation.error is not None else values
        for move, values in zip(moves, fresh_values(moves, query), strict=True)
    ]
    return bool(used_moves(trajectory.answer or "", shown))


def step_links(trajectory: Trajectory) -> list[list[int]]:
    """Per step, the earlier steps that any of its moves uses."""
    moves = moves_of(trajectory)
    used: list[set[int]] = [set() for _ in trajectory.steps]
    for move, sources in zip(moves, argument_links(moves, fresh_values(moves)), strict=True):
        used[move.step].update(moves[source].step for source in sources)
    return [sorted(steps) for steps in used]

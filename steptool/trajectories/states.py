"""In which state each step was taken, so that attempts can be compared wherever they were in the same one.

    A   find(tea) → 7, price(7) → 3, Finish      states   {}, {find}, {find, price}
    B   price(7) → 3, find(tea) → 7, Finish               {}, {price}, {find, price}
    C   find(tea) → 7, find(tea) → 7, Finish              {}, {find}, {find}

A and B end in the same state, and a call that brings what it brought before leads nowhere.
"""

from __future__ import annotations

from steptool.core.types import Trajectory, content_hash
from steptool.trajectories.links import Move, moves_of


def states_of(trajectory: Trajectory) -> tuple[str, ...]:
    """One key a step, for the state *before* its action: equal where the attempts at one task know the same.

    A state is the set of what was read so far: the name of a call, its arguments in canonical JSON, and its reply, or
    the kind of its error; a message with the user's reply is read, too, and so is the hint after a text that could not
    be read. Order and repetitions do not count, nor do thoughts and the calls that are left. Where the world's session
    tells its own state (`steptool.worlds.base.HasState`), that must be equal, too.
    """
    read: set[str] = set()
    moves = iter(moves_of(trajectory))
    move = next(moves, None)
    states = []
    for index, step in enumerate(trajectory.steps):
        states.append(content_hash([step.state, sorted(read)]))
        while move is not None and move.step == index:
            if move.observation is not None:
                read.add(_fact(move))
            move = next(moves, None)
    return tuple(states)


def _fact(move: Move) -> str:
    """What a move has shown: the same for the same call with the same reply."""
    assert move.observation is not None
    error = move.observation.error
    shown = ["reply", move.observation.text] if error is None else ["error", error]
    done = [move.call.name, move.call.arguments] if move.call else [move.action.message]
    return content_hash([done, shown])

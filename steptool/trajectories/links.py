"""Which step's reply a later step used: the links that credit flows along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from steptool.core.types import Trajectory
from steptool.trajectories import words as v

COPY_VALUES = 3
"""A single text that holds all of this many or more new values of a reply copies it rather than uses it."""


def fresh_values(trajectory: Trajectory, known: str = "") -> list[list[str]]:
    """Per step, the values that its reply was first to show.

    Not fresh is what stands in the text `known` or in the step's own arguments, and what an earlier reply
    gave as a value of its own (`16` is still fresh after `16 June`).
    """
    told, fresh = v.runs(known), []
    seen: set[str] = set()
    for step in trajectory.steps:
        asked = v.runs(step.call.arguments) if step.call else ""
        found = v.values(step.observation.text) if step.observation else []
        fresh.append([value for value in found if value not in seen and value not in told and value not in asked])
        seen.update(found)
    return fresh


def used_steps(leaf: str, fresh: list[list[str]], *, copies_count: bool = False) -> list[int]:
    """Indices of the steps in `fresh` that one argument or answer draws on.

    `copies_count` accepts a text that holds a whole reply, as a correct answer may.
    """
    text = v.run(leaf)
    drawn = []
    for index, found in enumerate(fresh):
        held = sum(value in text for value in found)
        is_copy = held == len(found) >= COPY_VALUES
        if held and (copies_count or not is_copy):
            drawn.append(index)
    return drawn


def argument_links(
    trajectory: Trajectory, fresh: list[list[str]], declares: Callable[[str, str], bool] = lambda tool, argument: True
) -> list[list[int]]:
    """Per step, the earlier steps whose fresh values stand in its arguments.

    `declares(tool, argument)` says whether a tool has such an argument: what it would ignore uses nothing.
    """
    links: list[list[int]] = []
    for index, step in enumerate(trajectory.steps):
        arguments: dict[str, Any] = {}
        if step.call is not None and not step.is_finish:
            arguments = {key: value for key, value in step.call.arguments.items() if declares(step.call.name, key)}
        drawn = {source for leaf in v.leaves(arguments) for source in used_steps(leaf, fresh[:index])}
        links.append(sorted(drawn))
    return links

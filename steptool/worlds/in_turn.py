"""The order of tasks that every world has: their groups interleaved, so that any first n are spread over the groups."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from itertools import zip_longest
from typing import TypeVar

Item = TypeVar("Item")


def in_turn(items: Iterable[Item], group: Callable[[Item], Hashable]) -> list[Item]:
    """One item of each group after the other, as long as they last; groups in the order of their first items, and the
    order within a group stays."""
    by_group: dict[Hashable, list[Item]] = {}
    for item in items:
        by_group.setdefault(group(item), []).append(item)
    return [item for turn in zip_longest(*by_group.values()) for item in turn if item is not None]

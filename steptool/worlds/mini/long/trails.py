"""A trail: where a thing went, and the calls that follow it. Pure, from a random generator.

A trail of n calls, the answer included, is made of these parts, in a random order but for the first and the last two:

    find       1 call       the id of the place where it begins
    hop        1 call       the next place, which may be another service's
    walk       1 + k calls  a hop that shows a list, whose k-th place is the first that is not empty
    last hop   1 call       the city that is the answer
    Finish     1 call
    recovery   1 call more  a call of the above fails: the same call again, or one with the id that the error names

Every hop but the last shows a city too, so whoever stops early has an answer that a reply showed, and it is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from steptool.core.types import Observation, ToolCall
from steptool.worlds.mini.execute import compact, failure
from steptool.worlds.mini.long.catalog import KINDS
from steptool.worlds.mini.plans import PASSING
from steptool.worlds.mini.schema import Provider
from steptool.worlds.mini.store import Ids

FEWEST_CALLS, MOST_CALLS = 8, 32
"""Calls of a flawless attempt, recoveries and Finish included."""
CALLS_A_PART = 8
"""For every so many calls a trail has one walk, one recovery and, between two services, one handing over."""
LIST = 3
"""Places of a list; the right one is any of them."""
FIND, HOP, LOOK = 0, 1, 2
"""Places of a service's APIs."""
RECOVERIES = ("unavailable", "unavailable", "unavailable", "rate_limit", "moved")

Key = tuple[str, str]
"""The full name of an API, and the one argument that it takes."""


@dataclass(frozen=True)
class Trail:
    calls: tuple[ToolCall, ...]
    """Of a flawless attempt, without Finish."""
    city: str
    """The answer."""
    replies: dict[Key, Observation]
    """What each call shows, once nothing is in its way."""
    passing: dict[Key, Observation]
    """What the first call of each of these shows instead."""
    early: int
    """How many of `calls` a careless attempt makes, which takes the city of the last of them for the answer."""
    early_city: str


@dataclass
class _Move:
    """A call of the straight way, and what it shows."""

    service: Provider
    api: int
    key: str
    shown: dict[str, Any]

    @property
    def at(self) -> Key:
        return self.service.full(self.service.apis[self.api]), self.key

    def call(self, key: str) -> ToolCall:
        return ToolCall(name=self.at[0], arguments={self.service.apis[self.api].key: key})


def make_trail(services: Sequence[Provider], name: str, calls: int, cities: Sequence[str], rng: Random) -> Trail:
    """A trail of `calls` calls (FEWEST_CALLS to MOST_CALLS) of the thing of a person through one or two services of
    which the first knows the person; `cities` are two or more, of which it ends in one."""
    city, *others = rng.sample(cities, len(cities))
    ids = Ids(rng)
    moves = list(_straight(services, name, _parts(calls, len(services), rng), others, ids, rng))
    moves[-1].shown = {"city": city, "end": True}
    replies = {move.at: compact(move.shown) for move in moves}
    passing: dict[Key, Observation] = {}
    failing: dict[int, str] = {}  # number of a move -> the key that its first call has
    errors: dict[Key, Observation] = {}
    for number in rng.sample(range(1, len(moves)), calls // CALLS_A_PART):
        move, kind = moves[number], rng.choice(RECOVERIES)
        failing[number] = move.key
        if kind in PASSING:
            passing[move.at] = failure(kind, PASSING[kind])
            continue
        failing[number] = old = ids.take(move.key[:2])
        errors[move.at[0], old] = failure("unknown_id", f"id moved, use {move.key}")
        replies = {at: text.replace(f'"{move.key}"', f'"{old}"') for at, text in replies.items()}
    made: list[ToolCall] = []
    ends: list[tuple[int, str]] = []
    for number, move in enumerate(moves):
        made += [move.call(key) for key in (failing.get(number), move.key) if key is not None]
        if "city" in move.shown and move is not moves[-1]:
            ends.append((len(made), move.shown["city"]))
    early, early_city = rng.choice(ends)
    shown = {at: Observation(text=text) for at, text in replies.items()}
    return Trail(tuple(made), city, shown | errors, passing, early, early_city)


def _parts(calls: int, services: int, rng: Random) -> list[str | int]:
    """What lies between the first call and the last hop, in order: hops, and walks as the number of their looks."""
    share = calls // CALLS_A_PART
    handed = share if services > 1 else 0
    while True:
        walks = [rng.randint(1, LIST) for _ in range(share)]
        hops = calls - 3 - share - sum(1 + looks for looks in walks)
        if hops >= handed:
            break
    parts: list[str | int] = [*walks, *["hand over"] * handed, *["hop"] * (hops - handed)]
    rng.shuffle(parts)
    return parts


def _straight(
    services: Sequence[Provider], name: str, parts: Sequence[str | int], cities: Sequence[str], ids: Ids, rng: Random
) -> Iterator[_Move]:
    """The calls that nothing interrupts; the last one has still to say that the trail ends there."""
    at = 0  # the service that knows the place

    def new(of: str) -> str:
        kind = KINDS[services[at].category]
        return ids.take(kind.place if of == "place" else kind.shelf)

    place = new("place")
    yield _Move(services[0], FIND, name, {"id": place})
    for part in parts:
        here, key, shown = services[at], place, {"city": rng.choice(cities)}
        if isinstance(part, int):
            shelves = [new("shelf") for _ in range(LIST)]
            place = new("place")
            yield _Move(here, HOP, key, {**shown, "in": shelves})
            for shelf in shelves[: part - 1]:
                yield _Move(here, LOOK, shelf, {"empty": True})
            yield _Move(here, LOOK, shelves[part - 1], {"to": place})
            continue
        if part == "hand over":
            at = (at + 1) % len(services)
            shown["by"] = services[at].name
        place = new("place")
        yield _Move(here, HOP, key, {**shown, "to": place})
    yield _Move(services[at], HOP, place, {})

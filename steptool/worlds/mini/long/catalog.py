"""What can be followed: kinds of things, and the services that know where they went.

A service has four APIs; the first three are what a task needs:

    find    the name of a person   -> {"id": …}                                where the trail begins
    next    the id of a place      -> {"city": …, "to": …}                     the next place
                                      {"city": …, "by": …, "to": …}            the next place is another service's
                                      {"city": …, "in": [id, id, id]}          it lies in one of these
                                      {"city": …, "end": true}                 the last place
    look    the id of a shelf      -> {"empty": true}, or {"to": …}
    info    the id of a place      -> a number that no task asks for

Each split has services of its own beside those of training, as the short tasks have.
"""

from __future__ import annotations

from dataclasses import dataclass

from steptool.worlds.base import Split
from steptool.worlds.mini.schema import Provider, find, get, provider


@dataclass(frozen=True)
class Kind:
    """A kind of thing that is followed."""

    name: str
    thing: str
    """How a query speaks of it: `parcel for {n}`."""
    place: str
    shelf: str
    """The letters that ids of its places and of its shelves begin with."""
    held_out: Split | None = None
    """The split that alone uses it; None where training sees it."""


KINDS = {
    kind.name: kind
    for kind in (
        Kind("parcels", "parcel for {n}", "dp", "sh"),
        Kind("files", "file of {n}", "ds", "dr"),
        Kind("luggage", "suitcase of {n}", "bt", "rk", held_out="dev"),
        Kind("paintings", "portrait of {n}", "gl", "wl", held_out="test"),
    )
}


def _service(name: str, kind: str, role: Split, key: str, names: str, words: str) -> Provider:
    """`names` of the four APIs; `words` for a thing, a place and where it may lie."""
    first, hop, look, info = names.split()
    thing, place, shelf = words.split()
    return provider(
        name,
        kind,
        "moving",
        role,
        find(first, "name", f"id of a {thing}"),
        get(hop, key, "", f"where it went from a {place}"),
        get(look, key, "", f"what is in a {shelf}"),
        get(info, key, "", f"number of a {place}"),
    )


SERVICES = {
    service.name: service
    for service in (
        _service("tracko", "parcels", "train", "id", "find next look info", "parcel depot shelf"),
        _service("sendly", "parcels", "train", "code", "find move open info", "parcel depot box"),
        _service("paperly", "files", "train", "id", "find next open count", "file desk drawer"),
        _service("deskio", "files", "train", "ref", "find pass look info", "file desk folder"),
        _service("boxero", "parcels", "dev", "ref", "find move look info", "parcel station box"),
        _service("filero", "files", "dev", "code", "find next look count", "file office drawer"),
        _service("bagly", "luggage", "dev", "id", "find next open info", "suitcase airport rack"),
        _service("caseway", "luggage", "dev", "ref", "find pass look count", "suitcase airport locker"),
        _service("shipwise", "parcels", "test", "ref", "find pass open info", "parcel station crate"),
        _service("docline", "files", "test", "code", "find move open count", "file office binder"),
        _service("artroad", "paintings", "test", "code", "find next look info", "portrait gallery wall"),
        _service("canvio", "paintings", "test", "id", "find move open count", "portrait museum room"),
    )
}


FRAMES: dict[Split, tuple[str, ...]] = {
    "train": (
        "In which city is the {thing} now? It was sent with {p}.",
        "Follow the {thing} on {p} to the end and tell me the city.",
        "The {thing} on {p}: which city did it end in?",
        "I lost the {thing}. Please find its last city on {p}.",
    ),
    "dev": ("Tell me the city where the {thing} is today, with {p}.", "Check {p}: where does the {thing} stop?"),
    "test": (
        "Give me the last city of the {thing} via {p}.",
        "The {thing} has been on its way for weeks. Use {p} and say where it lies.",
        "Where did the {thing} come to rest? {p} knows.",
    ),
}

"""What the travel desk of a railway knows. Its public functions are the tools of three agents."""

from __future__ import annotations

from typing import Any

CITIES = ("Oslo", "Bergen", "Malmo", "Aarhus", "Turku", "Kiel", "Gdansk", "Riga", "Vilnius", "Brno", "Graz", "Trieste")
TRAINS = [(origin, destination) for origin in CITIES for destination in CITIES if origin != destination]
"""Each runs once a day; its place in this list decides all about it."""


def find_train(origin: str, destination: str) -> dict[str, str]:
    """Id of the train between two cities."""
    names = (origin.strip().title(), destination.strip().title())
    if names not in TRAINS:
        raise LookupError(f"no train from {origin} to {destination}")
    return {"id": f"T{_number(TRAINS.index(names))}"}


def times(id: str) -> dict[str, str]:
    """When a train leaves and arrives."""
    place = _place(id)
    leaves, takes = 300 + 37 * place % 960, 45 + 29 * place % 200
    return {"leaves": _clock(leaves), "arrives": _clock(leaves + takes)}


def fare(id: str, people: int) -> dict[str, float]:
    """What so many people pay for a train, in euros."""
    if people < 1:
        raise ValueError("at least one person must travel")
    return {"total": people * (12 + 7 * _place(id) % 60) + 4.5}


def seats(id: str) -> dict[str, int]:
    """How many seats of a train are free."""
    return {"free": 11 * _place(id) % 48}


TOOLS = {function.__name__: function for function in (find_train, times, fare, seats)}


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a tool replies; what it raises is a reply, too."""
    try:
        return TOOLS[name](**arguments)
    except (LookupError, TypeError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _number(place: int) -> int:
    return 100 + 7 * place


def _place(id: str) -> int:
    places = [place for place in range(len(TRAINS)) if f"T{_number(place)}" == id]
    if not places:
        raise LookupError(f"no train id {id}, use find_train")
    return places[0]


def _clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02}"

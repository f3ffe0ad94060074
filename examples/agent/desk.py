"""What the travel desk of a railway knows. `TOOLS` are the tools of three agents: each replies with JSON."""

from __future__ import annotations

import json

CITIES = ("Oslo", "Bergen", "Malmo", "Aarhus", "Turku", "Kiel", "Gdansk", "Riga", "Vilnius", "Brno", "Graz", "Trieste")
TRAINS = [(origin, destination) for origin in CITIES for destination in CITIES if origin != destination]
"""Each runs once a day; its place in this list decides all about it."""
IDS = [f"T{100 + 7 * place}" for place in range(len(TRAINS))]


def find_train(origin: str, destination: str) -> str:
    """Id of the train between two cities."""
    names = (origin.strip().title(), destination.strip().title())
    if names not in TRAINS:
        return json.dumps({"error": f"no train from {origin} to {destination}"})
    return json.dumps({"id": IDS[TRAINS.index(names)]})


def times(id: str) -> str:
    """When a train leaves and arrives."""
    if id not in IDS:
        return _unknown(id)
    place = IDS.index(id)
    leaves, takes = 300 + 37 * place % 960, 45 + 29 * place % 200
    return json.dumps({"leaves": _clock(leaves), "arrives": _clock(leaves + takes)})


def fare(id: str, people: int) -> str:
    """What so many people pay for a train, in euros."""
    if id not in IDS:
        return _unknown(id)
    return json.dumps({"total": people * (12 + 7 * IDS.index(id) % 60) + 4.5})


def seats(id: str) -> str:
    """How many seats of a train are free."""
    return json.dumps({"free": 11 * IDS.index(id) % 48}) if id in IDS else _unknown(id)


TOOLS = {tool.__name__: tool for tool in (find_train, times, fare, seats)}


def _unknown(id: str) -> str:
    return json.dumps({"error": f"no train id {id}, use find_train"})


def _clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02}"

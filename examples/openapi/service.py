"""The desk of a small railway: five operations that read, and one that books.

python service.py                              serves it on http://127.0.0.1:8765
python service.py --document > openapi.json    writes what it says of itself
"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from hashlib import sha256
from itertools import permutations
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel, Field

PORT = 8765
STATIONS = {
    "ASH": "Ashford", "BRA": "Brandon", "COL": "Colby", "DUN": "Dunmore",
    "ELY": "Ely", "FEN": "Fenwick", "GAL": "Galway", "HUL": "Hull",
}  # fmt: skip
FACTORS = {"second": 1.0, "first": 1.5}
app = FastAPI(title="Railway desk", version="1", servers=[{"url": f"http://127.0.0.1:{PORT}"}])


class Class(StrEnum):
    second = "second"
    first = "first"


class Train(BaseModel):
    number: str
    origin: str
    destination: str
    departs: str
    arrives: str
    platform: int
    fare: float
    free_seats: int


class Order(BaseModel):
    train: str = Field(description="number of a train")
    seats: int = Field(ge=1, le=9)
    name: str = Field(description="who travels", min_length=1)


def _train(place: int, origin: str, destination: str) -> Train:
    """The trains are the same each day, and on each machine."""
    digits = sha256(f"{origin}{destination}".encode()).digest()
    minutes = 6 * 60 + digits[0] * 3
    arrives = minutes + 30 + digits[1] % 60
    return Train(
        number=f"T{11 + place}",
        origin=origin,
        destination=destination,
        departs=f"{minutes // 60:02}:{minutes % 60:02}",
        arrives=f"{arrives // 60:02}:{arrives % 60:02}",
        platform=1 + digits[2] % 9,
        fare=10 + digits[3] % 60 / 2,
        free_seats=20 + digits[4] % 80,
    )


TRAINS = {
    train.number: train for train in (_train(place, *ends) for place, ends in enumerate(permutations(STATIONS, 2)))
}
BOOKINGS: dict[str, Order] = {}


def _known(number: str) -> Train:
    if number not in TRAINS:
        raise HTTPException(404, f"no train {number}")
    return TRAINS[number]


@app.get("/stations", operation_id="find_station", summary="Code of a station.")
def find_station(name: Annotated[str, Query(description="the whole name")]) -> dict[str, str]:
    for code, known in STATIONS.items():
        if known.casefold() == name.casefold():
            return {"code": code}
    raise HTTPException(404, f"no station {name}")


@app.get("/stations/{code}/trains", operation_id="trains_from", summary="Trains that leave a station.")
def trains_from(
    code: str, to: Annotated[str | None, Query(description="code of where they go")] = None
) -> list[dict[str, str]]:
    if code not in STATIONS:
        raise HTTPException(404, f"no station of the code {code}, use find_station")
    found = [train for train in TRAINS.values() if train.origin == code and to in (None, train.destination)]
    return [{"number": train.number, "to": train.destination, "departs": train.departs} for train in found]


@app.get("/trains/{number}", operation_id="get_train", summary="All of a train: times, platform, fare, free seats.")
def get_train(number: str) -> Train:
    return _known(number)


@app.get("/trains/{number}/price", operation_id="get_price", summary="What seats on a train cost together.")
def get_price(
    number: str,
    seats: Annotated[int, Query(ge=1, le=9)],
    travel_class: Annotated[Class, Query(alias="class")] = Class.second,
) -> dict[str, float]:
    return {"price": _known(number).fare * seats * FACTORS[travel_class.value]}


@app.get("/bookings/{reference}", operation_id="get_booking", summary="A booking by its reference.")
def get_booking(reference: str) -> Order:
    if reference not in BOOKINGS:
        raise HTTPException(404, f"no booking {reference}")
    return BOOKINGS[reference]


@app.post("/bookings", operation_id="book", summary="Book seats; replies with the reference of the booking.")
def book(order: Order) -> dict[str, str]:
    _known(order.train)
    reference = f"{order.train}-{order.name.upper()}-{order.seats}"
    BOOKINGS[reference] = order
    return {"reference": reference}


def document() -> dict[str, Any]:
    return app.openapi()


if __name__ == "__main__":
    if "--document" in sys.argv:
        print(json.dumps(document(), indent=1))
    else:
        uvicorn.run(app, port=int(sys.argv[1]) if sys.argv[1:] else PORT, log_level="warning")

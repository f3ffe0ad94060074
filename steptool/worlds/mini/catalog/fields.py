"""Fields that several categories have."""

from __future__ import annotations

from steptool.worlds.mini.schema import Field, Wording


def number(
    name: str,
    nouns: Wording,
    low: int,
    high: int,
    step: int = 1,
    *,
    own: bool = False,
    less: Wording | None = None,
    more: Wording | None = None,
) -> Field:
    return Field(name=name, nouns=nouns, low=low, high=high, step=step, own=own, less=less, more=more)


def price(low: int, high: int, step: int = 1) -> Field:
    less = ("cheaper", "less expensive", "lower in price")
    return number("price", ("price", "cost", "price tag"), low, high, step, own=True, less=less)


def rating() -> Field:
    more = ("better rated", "rated higher", "more highly rated")
    return number("rating", ("rating", "score", "user rating"), 11, 99, own=True, more=more)


CITY = Field(name="city", nouns=("city", "town", "location"), vocabulary="city")
PHONE = number("phone", ("phone number", "telephone number", "number to call"), 20100, 98999)
DATES = ("2 May", "9 May", "16 June", "23 June", "7 July", "14 July", "4 August", "11 August", "19 October", "3 March")
TIMES = ("6:40", "7:15", "8:30", "9:00", "9:45", "10:30", "11:20", "12:15")

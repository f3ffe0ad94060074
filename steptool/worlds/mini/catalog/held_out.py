"""The categories that training never sees: two that only dev uses, two that only test uses.

Their wordings are empty in the splits that never ask about them.
"""

from __future__ import annotations

from steptool.worlds.mini.catalog.fields import CITY, DATES, TIMES, number, price, rating
from steptool.worlds.mini.schema import Category, Field

CATEGORIES = (
    Category(
        name="trains",
        noun="train",
        key="train",
        prefix="tn",
        naming=("{adjective} {noun} Express",),
        held_out="dev",
        group="city",
        in_group="to {g}",
        ordering=("", "reserve {c} seats on {n}", ""),
        counted="{c} seats on {n}",
        fields=(
            CITY,
            Field(name="departs", nouns=("", "departure time", ""), choices=TIMES),
            number("minutes", ("", "travel time in minutes", ""), 35, 420, less=("", "faster", "")),
            price(9, 120),
            number("seats", ("", "number of free seats", ""), 21, 300, own=True),
        ),
    ),
    Category(
        name="courses",
        noun="course",
        key="course",
        prefix="co",
        naming=("{topic} {level}",),
        held_out="dev",
        group="teacher",
        in_group="taught by {g}",
        ordering=("", "enroll {c} people in {n}", ""),
        counted="{c} places in {n}",
        fields=(
            Field(name="teacher", nouns=("", "teacher", ""), vocabulary="person"),
            number("weeks", ("", "length in weeks", ""), 2, 30, less=("", "shorter", "")),
            Field(name="starts", nouns=("", "start date", ""), choices=DATES),
            price(30, 400, 5),
            number("places", ("", "number of free places", ""), 21, 60, own=True),
        ),
    ),
    Category(
        name="museums",
        noun="museum",
        key="museum",
        prefix="mu",
        naming=("{adjective} {noun} Museum",),
        held_out="test",
        group="city",
        in_group="in {g}",
        ordering=("", "", "book {c} entries to {n}"),
        counted="{c} entries to {n}",
        fields=(
            CITY,
            Field(name="opens", nouns=("", "", "opening time"), choices=TIMES),
            number("founded", ("", "", "founding year"), 1790, 1990, less=("", "", "older"), more=("", "", "newer")),
            price(4, 45),
            rating(),
        ),
    ),
    Category(
        name="cars",
        noun="car",
        key="model",
        prefix="cr",
        naming=("{last} {noun}",),
        held_out="test",
        group="city",
        in_group="in {g}",
        ordering=("", "", "rent the {n} for {c} days"),
        counted="{c} days of the {n}",
        fields=(
            CITY,
            Field(name="fuel", nouns=("", "", "fuel"), choices=("petrol", "diesel", "electric", "hybrid")),
            number("doors", ("", "", "number of doors"), 2, 7),
            price(20, 160),
            rating(),
        ),
    ),
)

"""The categories: eight that training sees, two that only dev uses, two that only test uses."""

from __future__ import annotations

from steptool.worlds.mini.schema import Category, Field, Wording


def _number(
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


def _price(low: int, high: int, step: int = 1) -> Field:
    less = ("cheaper", "less expensive", "lower in price")
    return _number("price", ("price", "cost", "price tag"), low, high, step, own=True, less=less)


def _rating() -> Field:
    more = ("better rated", "rated higher", "more highly rated")
    return _number("rating", ("rating", "score", "user rating"), 11, 99, own=True, more=more)


_CITY = Field(name="city", nouns=("city", "town", "location"), vocabulary="city")
_PHONE = _number("phone", ("phone number", "telephone number", "number to call"), 20100, 98999)
_DATES = ("2 May", "9 May", "16 June", "23 June", "7 July", "14 July", "4 August", "11 August", "19 October", "3 March")
_TIMES = ("6:40", "7:15", "8:30", "9:00", "9:45", "10:30", "11:20", "12:15")

_SEEN = (
    Category(
        name="books",
        noun="book",
        key="title",
        prefix="bk",
        naming=("The {adjective} {noun}",),
        group="author",
        in_group="by {g}",
        ordering=("order {c} copies of {n}", "buy {c} copies of {n}", "purchase {c} copies of {n}"),
        counted="{c} copies of {n}",
        fields=(
            Field(name="author", nouns=("author", "writer", "author's name"), vocabulary="person"),
            _number(
                "year",
                ("year", "publication year", "year of publication"),
                1931,
                2019,
                less=("older", "from an earlier year", "the earlier book"),
                more=("newer", "more recent", "the later book"),
            ),
            _number(
                "pages",
                ("number of pages", "page count", "length in pages"),
                90,
                780,
                more=("longer", "the thicker book", "greater in pages"),
            ),
            _price(6, 60),
            _number("stock", ("stock", "number in stock", "number of copies left"), 21, 95, own=True),
        ),
    ),
    Category(
        name="films",
        noun="film",
        key="title",
        prefix="fm",
        naming=("{adjective} {noun}",),
        group="director",
        in_group="directed by {g}",
        ordering=("rent {n} for {c} days", "get {n} for {c} days", "take out {n} for {c} days"),
        counted="{c} days of {n}",
        fields=(
            Field(name="director", nouns=("director", "film maker", "director's name"), vocabulary="person"),
            _number(
                "year",
                ("year", "release year", "year of release"),
                1941,
                2021,
                less=("older", "from an earlier year", "the earlier film"),
                more=("newer", "more recent", "the later film"),
            ),
            _number(
                "minutes",
                ("length in minutes", "running time", "duration in minutes"),
                71,
                190,
                less=("shorter", "less long", "the shorter film"),
                more=("longer", "more minutes long", "the longer film"),
            ),
            _price(2, 25),
            _rating(),
        ),
    ),
    Category(
        name="hotels",
        noun="hotel",
        key="hotel",
        prefix="ht",
        naming=("{adjective} {noun} Inn",),
        group="city",
        in_group="in {g}",
        ordering=("book {n} for {c} nights", "reserve {c} nights at {n}", "arrange {c} nights at {n}"),
        counted="{c} nights at {n}",
        fields=(
            _CITY,
            _number(
                "stars",
                ("number of stars", "star rating", "stars"),
                1,
                6,
                more=("better by stars", "higher in stars", "the one with more stars"),
            ),
            _PHONE,
            _price(40, 290, 5),
            _number("rooms", ("number of free rooms", "rooms left", "free room count"), 21, 80, own=True),
        ),
    ),
    Category(
        name="food",
        noun="restaurant",
        key="name",
        prefix="rs",
        naming=("{last} {noun} Grill", "{adjective} {last} Kitchen"),
        group="city",
        in_group="in {g}",
        ordering=("reserve a table for {c} at {n}", "get {c} seats at {n}", "book {n} for {c} people"),
        counted="{c} menus at {n}",
        fields=(
            _CITY,
            Field(
                name="cuisine",
                nouns=("cuisine", "kind of food", "style of cooking"),
                choices=("Thai", "Greek", "vegan", "French", "Indian", "Mexican", "seafood", "Italian"),
            ),
            _PHONE,
            _price(12, 90),
            _rating(),
        ),
    ),
    Category(
        name="concerts",
        noun="concert",
        key="artist",
        prefix="cn",
        naming=("{first} {last}",),
        group="city",
        in_group="in {g}",
        ordering=("buy {c} tickets for {n}", "get {c} seats for {n}", "order {c} tickets to see {n}"),
        counted="{c} tickets for {n}",
        fields=(
            _CITY,
            Field(name="date", nouns=("date", "day", "concert date"), choices=_DATES),
            Field(
                name="venue",
                nouns=("venue", "hall", "place of the concert"),
                choices=("Opera", "Arena", "Old Mill", "Blue Hall", "Dock 7", "City Park"),
            ),
            _price(15, 140),
            _number(
                "seats",
                ("number of free seats", "seats left", "free seat count"),
                21,
                400,
                own=True,
                more=("less full", "better in free seats", "the one with more seats left"),
            ),
        ),
    ),
    Category(
        name="shops",
        noun="product",
        key="product",
        prefix="pr",
        naming=("{last} {type}",),
        group="type",
        in_group="of type {g}",
        ordering=("order {c} pieces of the {n}", "buy {c} of the {n}", "purchase {c} units of the {n}"),
        counted="{c} pieces of the {n}",
        fields=(
            Field(name="type", nouns=("type", "sort", "product type"), vocabulary="type"),
            Field(
                name="colour",
                nouns=("colour", "finish", "colour it comes in"),
                choices=("red", "black", "white", "green", "blue", "grey", "yellow"),
            ),
            _number(
                "grams",
                ("weight in grams", "weight", "mass in grams"),
                150,
                9900,
                50,
                less=("lighter", "less heavy", "the lighter one"),
                more=("heavier", "greater in weight", "the heavier one"),
            ),
            _price(11, 240),
            _number(
                "days",
                ("delivery time in days", "days to deliver", "number of days until delivery"),
                1,
                15,
                own=True,
                less=("delivered sooner", "faster to arrive", "quicker in delivery"),
            ),
        ),
    ),
    Category(
        name="weather",
        noun="city",
        key="city",
        prefix="wx",
        naming=("{city}",),
        fields=(
            Field(
                name="sky",
                nouns=("sky", "weather", "state of the sky"),
                own=True,
                choices=("sunny", "cloudy", "rain", "fog", "snow", "storm", "clear"),
            ),
            _number(
                "high",
                ("temperature", "high", "highest temperature"),
                1,
                38,
                own=True,
                less=("colder", "cooler", "lower in temperature"),
                more=("warmer", "hotter", "higher in temperature"),
            ),
            _number(
                "wind",
                ("wind", "wind speed", "speed of the wind"),
                3,
                80,
                own=True,
                more=("windier", "more windy", "the windier one"),
            ),
        ),
    ),
    Category(
        name="money",
        noun="currency",
        key="currency",
        prefix="cu",
        naming=("{currency}",),
        fields=(
            Field(name="country", nouns=("country", "home country", "country of use"), vocabulary="country"),
            _number(
                "rate",
                ("rate", "exchange rate", "rate per dollar"),
                2,
                90,
                own=True,
            ),
        ),
    ),
)

_DEV_ONLY = (
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
            _CITY,
            Field(name="departs", nouns=("", "departure time", ""), choices=_TIMES),
            _number("minutes", ("", "travel time in minutes", ""), 35, 420, less=("", "faster", "")),
            _price(9, 120),
            _number("seats", ("", "number of free seats", ""), 21, 300, own=True),
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
            _number("weeks", ("", "length in weeks", ""), 2, 30, less=("", "shorter", "")),
            Field(name="starts", nouns=("", "start date", ""), choices=_DATES),
            _price(30, 400, 5),
            _number("places", ("", "number of free places", ""), 21, 60, own=True),
        ),
    ),
)

_TEST_ONLY = (
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
            _CITY,
            Field(name="opens", nouns=("", "", "opening time"), choices=_TIMES),
            _number("founded", ("", "", "founding year"), 1790, 1990, less=("", "", "older"), more=("", "", "newer")),
            _price(4, 45),
            _rating(),
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
            _CITY,
            Field(name="fuel", nouns=("", "", "fuel"), choices=("petrol", "diesel", "electric", "hybrid")),
            _number("doors", ("", "", "number of doors"), 2, 7),
            _price(20, 160),
            _rating(),
        ),
    ),
)

CATEGORIES: dict[str, Category] = {category.name: category for category in (*_SEEN, *_DEV_ONLY, *_TEST_ONLY)}

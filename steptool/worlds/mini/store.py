"""The data: every provider's listings, drawn from a seed and held in an in-memory SQLite database.

Items belong to one split and take their names from that split's words; a listing is an item at one
provider, with an id of its own there. Providers list about three items in four, so that looking in
the wrong place finds nothing.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from steptool.worlds.base import SPLITS, Split
from steptool.worlds.mini.catalog import CATEGORIES, PROVIDERS
from steptool.worlds.mini.schema import Category, Field, Provider
from steptool.worlds.mini.words import WORDS, people

ITEMS_PER_GROUP = 3
"""Bounds the reply of a `list` call."""
LISTED = 0.75
Condition = tuple[str, Literal["=", "<="], Any]
"""Column, operator, value."""
CURRENCY_RATES = {"USD": 1.0, "EUR": 0.9}


@dataclass(frozen=True)
class Listing:
    """One item at one provider."""

    id: str
    provider: str
    split: Split
    name: str
    values: dict[str, Any]


class Ids:
    """Short ids (`bk417`) that are never given twice and say nothing about what they name."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._left: dict[str, list[int]] = {}

    def take(self, prefix: str) -> str:
        left = self._left.get(prefix)
        if left is None:
            left = self._left[prefix] = self._rng.sample(range(100, 1000), 900)
        return f"{prefix}{left.pop()}"


def _value(field: Field, split: Split, rng: Random) -> Any:
    if field.vocabulary:
        return rng.choice(WORDS[split][field.vocabulary])
    return rng.choice(field.choices) if field.choices else rng.randrange(field.low, field.high, field.step)


def _groups(category: Category, split: Split) -> tuple[str, ...]:
    """What items are grouped by; as many as the split has cities, which is about 14."""
    vocabulary = category.field(category.group).vocabulary
    words = people(split) if vocabulary == "person" else WORDS[split][vocabulary]
    return words[: len(WORDS[split]["city"])]


def _items(category: Category, split: Split, rng: Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and facts of the items of one category in one split; names are distinct."""
    words = WORDS[split]
    if not category.group:
        for name in words[category.naming[0].strip("{}")]:
            yield name, {field.name: _value(field, split, rng) for field in category.fields if not field.own}
        return
    seen: set[str] = set()
    for group in _groups(category, split):
        for _ in range(ITEMS_PER_GROUP):
            name = ""
            while not name or name in seen:
                slots = {kind: rng.choice(values) for kind, values in words.items()}
                name = rng.choice(category.naming).format(**(slots | {category.group: group}))
            seen.add(name)
            facts = {
                field.name: _value(field, split, rng)
                for field in category.fields
                if not field.own and field.name != category.group
            }
            yield name, facts | {category.group: group}


def _active(provider: Provider, category: Category, split: Split) -> bool:
    """Whether a provider has data in a split: seen ones always, held-out ones in their own."""
    return provider.category == category.name and (
        provider.role == split or (provider.role == "train" and category.held_out is None)
    )


class Store:
    """Listings of all splits, for task writers as objects and for API calls as SQL."""

    def __init__(self, seed: int) -> None:
        rng = Random(f"mini-store:{seed}")
        self.ids = Ids(rng)
        self.listings: list[Listing] = []
        for category in CATEGORIES.values():
            for split in SPLITS:
                if category.held_out in (None, split):
                    self._list_items(category, split, rng)
        self.codes = {self.ids.take("ct"): city for split in SPLITS for city in WORDS[split]["city"]}
        self._by_provider: dict[tuple[str, Split], list[Listing]] = defaultdict(list)
        for listing in self.listings:
            self._by_provider[listing.provider, listing.split].append(listing)
        self._database = self._fill()

    def _list_items(self, category: Category, split: Split, rng: Random) -> None:
        providers = [provider for provider in PROVIDERS.values() if _active(provider, category, split)]
        for name, facts in _items(category, split, rng):
            listed = [p for p in providers if not category.group or rng.random() < LISTED] or [rng.choice(providers)]
            for provider in listed:
                offer = {field.name: _value(field, split, rng) for field in category.fields if field.own}
                values = {field.name: (offer if field.own else facts)[field.name] for field in category.fields}
                self.listings.append(Listing(self.ids.take(category.prefix), provider.name, split, name, values))

    def _fill(self) -> sqlite3.Connection:
        # Identifiers come from the declarations above, never from a caller; values are always bound.
        database = sqlite3.connect(":memory:", check_same_thread=False)
        for category in CATEGORIES.values():
            columns = ["id PRIMARY KEY", "provider", f'"{category.key}" COLLATE NOCASE']
            columns += [
                f'"{field.name}"' + (" COLLATE NOCASE" if field.name == category.group else "")
                for field in category.fields
            ]
            database.execute(f"CREATE TABLE {category.name} ({', '.join(columns)})")
            rows = [
                (listing.id, listing.provider, listing.name, *listing.values.values())
                for listing in self.listings
                if PROVIDERS[listing.provider].category == category.name
            ]
            places = ",".join("?" * len(columns))
            database.executemany(f'INSERT INTO "{category.name}" VALUES ({places})', rows)  # noqa: S608 - as above
        database.execute("CREATE TABLE codes (code PRIMARY KEY, name COLLATE NOCASE)")
        database.executemany("INSERT INTO codes VALUES (?, ?)", self.codes.items())
        database.commit()
        database.execute("PRAGMA query_only = ON")
        return database

    def select(self, table: str, columns: Sequence[str], *conditions: Condition) -> list[dict[str, Any]]:
        """Rows that meet all conditions, sorted by the first column.

        Names of tables and columns come from the catalogue, never from a caller; values are bound.
        """
        chosen = ", ".join(f'"{column}"' for column in columns)
        where = " AND ".join(f'"{column}" {operator} ?' for column, operator, _ in conditions)
        sql = f'SELECT {chosen} FROM "{table}" WHERE {where} ORDER BY 1'  # noqa: S608 - see the docstring
        found = self._database.execute(sql, [value for _, _, value in conditions])
        return [dict(zip(columns, row, strict=True)) for row in found]

    def at(self, provider: Provider, split: Split) -> list[Listing]:
        """Everything that a provider lists in a split."""
        return self._by_provider[provider.name, split]

    def find(self, provider: Provider, split: Split, name: str) -> Listing | None:
        return next((listing for listing in self.at(provider, split) if listing.name == name), None)

"""Writers of tasks that need one provider (G1). Each returns a plan, or None where the draw does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import Literal

from steptool.core.types import ToolCall
from steptool.worlds.base import SPLITS, Split
from steptool.worlds.mini.catalog import CATEGORIES
from steptool.worlds.mini.execute import confirmation, converted, in_unit
from steptool.worlds.mini.phrases import say
from steptool.worlds.mini.plans import Plan, Shortcut, call, use
from steptool.worlds.mini.schema import OPTIONS, Api, Category, Field, Provider, Wording
from steptool.worlds.mini.store import Listing, Store

Answer = str | float | tuple[str, ...]
THREE_WAY = 0.1
"""Share of the comparisons that have three items; the longest tasks are among them."""
OPTION_WORDS = {"EUR": "euros", "F": "Fahrenheit"}


@dataclass(frozen=True)
class Draw:
    """One provider and what a writer needs to draw a task about it."""

    store: Store
    split: Split
    rng: Random
    provider: Provider
    decoy: Provider | None

    @property
    def category(self) -> Category:
        return CATEGORIES[self.provider.category]

    def listing(self) -> Listing:
        return self.rng.choice(self.store.at(self.provider, self.split))

    def word(self, wording: Wording | None) -> str:
        return wording[SPLITS.index(self.split)] if wording else ""

    def say(self, kind: str, *items: str, **slots: object) -> str:
        """Phrase a query. The provider is named where another one is offered that could answer about `items`."""
        rival = self.decoy is not None and (
            not items or any(self.store.find(self.decoy, self.split, item) for item in items)
        )
        named = self.provider.name if rival or self.rng.random() < 0.4 else None
        return say(kind, self.split, self.rng, named, **slots)

    def plan(
        self, kind: str, query: str, calls: list[ToolCall], answer: Answer, shortcut: Shortcut | None = None
    ) -> Plan:
        return make_plan(kind, query, calls, answer, (self.provider,), self.decoy, shortcut)

    def group(self) -> tuple[str, list[Listing]]:
        """A group (a city, an author) that the provider has, and its listings, cheapest first."""
        group = self.listing().values[self.category.group]
        return group, listings_of(self.store, self.provider, self.split, group)


def listings_of(store: Store, provider: Provider, split: Split, group: str) -> list[Listing]:
    field = CATEGORIES[provider.category].group
    listings = [listing for listing in store.at(provider, split) if listing.values[field] == group]
    return sorted(listings, key=lambda listing: (listing.values["price"], listing.id))


def make_plan(
    kind: str,
    query: str,
    calls: list[ToolCall],
    answer: Answer,
    providers: tuple[Provider, ...],
    decoy: Provider | None = None,
    shortcut: Shortcut | None = None,
) -> Plan:
    """The way an answer is checked follows from its type: numbers, names, or a tuple of names."""
    check: Literal["text", "number", "set"] = "text"
    if isinstance(answer, tuple):
        check = "set"
    elif not isinstance(answer, str):
        check, answer = "number", str(answer)
    return Plan(kind, query, tuple(calls), answer, check, providers, decoy, shortcut)


def readable(draw: Draw) -> list[tuple[Api, Field]]:
    """Fields that the provider's `get` APIs tell."""
    return [(api, draw.category.field(name)) for api in draw.provider.apis if api.kind == "get" for name in api.fields]


def cheapest(listings: list[Listing]) -> Listing | None:
    """The first of listings sorted by price, unless there is no choice or a tie."""
    if len(listings) < 2 or listings[0].values["price"] == listings[1].values["price"]:
        return None
    return listings[0]


def details(draw: Draw) -> Plan:
    api, field = draw.rng.choice(readable(draw))
    item = draw.listing()
    query = draw.say("details", item.name, n=item.name, f=draw.word(field.nouns))
    return draw.plan("details", query, use(draw.provider, item, api), item.values[field.name])


def option(draw: Draw) -> Plan | None:
    choices = [(api, field) for api, field in readable(draw) if api.option and field.name in ("price", "high")]
    if not choices:
        return None
    api, field = draw.rng.choice(choices)
    unit = OPTIONS[api.option][1]
    item = draw.listing()
    query = draw.say("option", item.name, n=item.name, f=draw.word(field.nouns), c=OPTION_WORDS[unit])
    calls = use(draw.provider, item, api, **{api.option: unit})
    return draw.plan("option", query, calls, in_unit(item.values[field.name], field.name, unit))


def compare(draw: Draw) -> Plan | None:
    choices = [
        (api, field, word) for api, field in readable(draw) for word in (field.less, field.more) if draw.word(word)
    ]
    if not choices:
        return None
    api, field, word = draw.rng.choice(choices)
    items = [draw.listing() for _ in range(3 if draw.rng.random() < THREE_WAY else 2)]
    if len({item.values[field.name] for item in items}) < len(items):
        return None
    pick = min if word is field.less else max
    answer = pick(items, key=lambda item: item.values[field.name]).name
    parts = [use(draw.provider, item, api) for item in items]
    names = [item.name for item in items]
    query = draw.say("compare", *names, n=", ".join(names[:-1]), m=names[-1], w=draw.word(word))
    return draw.plan("compare", query, list(chain(*parts)), answer, Shortcut(tuple(parts[0]), names[0]))


def act(draw: Draw) -> Plan | None:
    api = draw.provider.first("act")
    if api is None:
        return None
    item, count = draw.listing(), draw.rng.randint(2, 9)
    do = draw.word(draw.category.ordering).format(n=item.name, c=count)
    answer = confirmation(draw.provider, api, item.id, count)
    calls = use(draw.provider, item, api, **{api.count: count})
    return draw.plan("act", draw.say("act", item.name, do=do), calls, answer)


def quote(draw: Draw) -> Plan | None:
    api = draw.provider.first("quote")
    if api is None:
        return None
    item, count = draw.listing(), draw.rng.randint(2, 9)
    query = draw.say("quote", item.name, c=draw.category.counted.format(n=item.name, c=count))
    return draw.plan("quote", query, use(draw.provider, item, api, **{api.count: count}), item.values["price"] * count)


def convert(draw: Draw) -> Plan | None:
    api = draw.provider.first("convert")
    if api is None:
        return None
    item, dollars = draw.listing(), draw.rng.randint(11, 480)
    query = draw.say("convert", item.name, n=item.name, c=dollars)
    calls = use(draw.provider, item, api, **{api.count: dollars})
    return draw.plan("convert", query, calls, converted(item.values["rate"], dollars))


def _about_group(draw: Draw, kind: str, group: str, **slots: object) -> str:
    return draw.say(kind, noun=draw.category.noun, group=draw.category.in_group.format(g=group), **slots)


def cheapest_of(draw: Draw) -> Plan | None:
    api = draw.provider.first("list", draw.category.key)
    if api is None:
        return None
    group, listings = draw.group()
    best = cheapest(listings)
    if best is None:
        return None
    return draw.plan("cheapest", _about_group(draw, "cheapest", group), [call(draw.provider, api, group)], best.name)


def limited(draw: Draw) -> Plan | None:
    api = draw.provider.first("list", draw.category.key)
    if api is None or not api.limit:
        return None
    group, listings = draw.group()
    best = cheapest(listings)
    if best is None:
        return None
    limit = draw.rng.randrange(best.values["price"], listings[1].values["price"])
    calls = [call(draw.provider, api, group, **{api.limit: limit})]
    return draw.plan("limit", _about_group(draw, "limit", group, c=limit), calls, best.name)


def cheapest_details(draw: Draw) -> Plan | None:
    api = draw.provider.first("list")
    choices = [(get, field) for get, field in readable(draw) if field.name not in ("price", draw.category.group)]
    if api is None or not choices:
        return None
    group, listings = draw.group()
    best = cheapest(listings)
    if best is None:
        return None
    get, field = draw.rng.choice(choices)
    calls = [call(draw.provider, api, group), *use(draw.provider, best, get)]
    if "id" in api.fields:  # the list told the id already
        calls = [calls[0], calls[-1]]
    query = _about_group(draw, "cheapest_details", group, f=draw.word(field.nouns))
    return draw.plan("cheapest_details", query, calls, best.values[field.name])


def all_of(draw: Draw) -> Plan | None:
    api = draw.provider.first("list", draw.category.key)
    if api is None:
        return None
    group, listings = draw.group()
    if len(listings) < 2:
        return None
    names = tuple(sorted(listing.name for listing in listings))
    return draw.plan("all", _about_group(draw, "all", group), [call(draw.provider, api, group)], names)


def other(draw: Draw) -> Plan | None:
    api = draw.provider.first("list", draw.category.key)
    get = draw.provider.first("get", draw.category.group)
    if api is None or get is None:
        return None
    item = draw.listing()
    group = item.values[draw.category.group]
    rest = [
        listing for listing in listings_of(draw.store, draw.provider, draw.split, group) if listing.name != item.name
    ]
    if len(rest) != 1:
        return None
    noun = draw.word(draw.category.field(draw.category.group).nouns)
    query = draw.say("other", n=item.name, noun=draw.category.noun, f=noun)
    calls = [*use(draw.provider, item, get), call(draw.provider, api, group)]
    return draw.plan("other", query, calls, rest[0].name)


WRITERS: tuple[tuple[Callable[[Draw], Plan | None], int], ...] = (
    (details, 80),
    (compare, 16),
    (act, 36),
    (option, 3),
    (quote, 36),
    (convert, 40),
    (cheapest_of, 10),
    (limited, 2),
    (cheapest_details, 2),
    (all_of, 1),
    (other, 2),
)
"""Writers and their weights; one that fits few providers has a high weight, since unfit draws are thrown away."""

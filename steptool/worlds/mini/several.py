"""Writers of tasks that need two providers: of one category (G2), or of one collection (G3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from steptool.core.types import ToolCall
from steptool.worlds.base import SPLITS, Split
from steptool.worlds.mini.catalog import CATEGORIES
from steptool.worlds.mini.execute import confirmation, converted
from steptool.worlds.mini.phrases import say
from steptool.worlds.mini.plans import Plan, Shortcut, call, use
from steptool.worlds.mini.schema import Category, Provider, Wording
from steptool.worlds.mini.single import Answer, cheapest, listings_of, make_plan
from steptool.worlds.mini.store import Listing, Store


@dataclass(frozen=True)
class PairDraw:
    """Two providers and what a writer needs to draw a task about them; `one` is asked first."""

    store: Store
    split: Split
    rng: Random
    one: Provider
    two: Provider

    @property
    def category(self) -> Category:
        return CATEGORIES[self.one.category]

    def word(self, wording: Wording) -> str:
        return wording[SPLITS.index(self.split)]

    def say(self, kind: str, **slots: object) -> str:
        return say(kind, self.split, self.rng, None, **slots)

    def item(self) -> Listing:
        return self.rng.choice(self.store.at(self.one, self.split))

    def plan(
        self, kind: str, query: str, calls: list[ToolCall], answer: Answer, shortcut: Shortcut | None = None
    ) -> Plan:
        return make_plan(kind, query, calls, answer, (self.one, self.two), None, shortcut)


def _priced_at_both(draw: PairDraw) -> tuple[Listing, Listing] | None:
    """An item that both providers list, at different prices."""
    item = draw.item()
    twin = draw.store.find(draw.two, draw.split, item.name)
    if twin is None or "price" not in item.values or twin.values["price"] == item.values["price"]:
        return None
    return item, twin


def _prices(draw: PairDraw, item: Listing, twin: Listing) -> tuple[list[ToolCall], list[ToolCall]]:
    parts = []
    for provider, listing in ((draw.one, item), (draw.two, twin)):
        parts.append(use(provider, listing, provider.need("get", "price")))
    return parts[0], parts[1]


def where(draw: PairDraw) -> Plan | None:
    pair = _priced_at_both(draw)
    if pair is None:
        return None
    item, twin = pair
    first, second = _prices(draw, item, twin)
    answer = (draw.one if item.values["price"] < twin.values["price"] else draw.two).name
    query = draw.say("where", n=item.name, p=draw.one.name, q=draw.two.name)
    return draw.plan("where", query, first + second, answer, Shortcut(tuple(first), draw.one.name))


def act_where(draw: PairDraw) -> Plan | None:
    pair = _priced_at_both(draw)
    if pair is None:
        return None
    count = draw.rng.randint(2, 9)
    first, second = _prices(draw, *pair)
    orders, codes = [], []
    for provider, listing in zip((draw.one, draw.two), pair, strict=True):
        api = provider.first("act")
        if api is None:
            return None
        orders.append(use(provider, listing, api, **{api.count: count})[-1])
        codes.append(confirmation(provider, api, listing.id, count))
    best = 0 if pair[0].values["price"] < pair[1].values["price"] else 1
    do = draw.word(draw.category.ordering).format(n=pair[0].name, c=count)
    query = draw.say("act_where", do=do, p=draw.one.name, q=draw.two.name)
    shortcut = Shortcut((*first, orders[0]), codes[0])
    plan = draw.plan("act_where", query, [*first, *second, orders[best]], codes[best], shortcut)
    return replace(plan, also=tuple(order.name for order in orders))


def either(draw: PairDraw) -> Plan | None:
    """The item is at one of two providers; the one that the query names first often lacks it."""
    holder = draw.two if draw.rng.random() < 0.65 else draw.one
    item = draw.rng.choice(draw.store.at(holder, draw.split))
    rival = draw.one if holder is draw.two else draw.two
    if draw.store.find(rival, draw.split, item.name):
        return None
    field = draw.rng.choice(draw.category.fields)
    calls = use(holder, item, holder.need("get", field.name))
    if holder is draw.two:
        calls = [use(draw.one, item, draw.one.need("get", field.name))[0], *calls]
    query = draw.say("either", n=item.name, f=draw.word(field.nouns), p=draw.one.name, q=draw.two.name)
    plan = draw.plan("either", query, calls, item.values[field.name])
    rivals = [rival.first("find"), rival.need("get", field.name)]
    return replace(plan, also=tuple(rival.full(api) for api in rivals if api))


def elsewhere(draw: PairDraw) -> Plan | None:
    """A fact from one provider is what to list by at the other."""
    get = draw.one.first("get", draw.category.group)
    api = draw.two.first("list", CATEGORIES[draw.two.category].key)
    if get is None or api is None:
        return None
    item = draw.item()
    group = item.values[draw.category.group]
    best = cheapest(listings_of(draw.store, draw.two, draw.split, group))
    if best is None:
        return None
    noun = draw.word(draw.category.field(draw.category.group).nouns)
    query = draw.say("elsewhere", n=item.name, p=draw.one.name, q=draw.two.name, f=noun, noun=draw.category.noun)
    return draw.plan("elsewhere", query, [*use(draw.one, item, get), call(draw.two, api, group)], best.name)


def weather(draw: PairDraw) -> Plan | None:
    get = draw.one.first("get", "city")
    if get is None or draw.two.category != "weather":
        return None
    item = draw.item()
    report = draw.store.find(draw.two, draw.split, item.values["city"])
    if report is None:
        return None
    field = CATEGORIES["weather"].field(draw.rng.choice(("sky", "high", "wind")))
    api = draw.two.need("get", field.name)
    query = draw.say("weather", n=item.name, f=draw.word(field.nouns))
    calls = [*use(draw.one, item, get), *use(draw.two, report, api)]
    return draw.plan("weather", query, calls, report.values[field.name])


def nearby(draw: PairDraw) -> Plan | None:
    category = CATEGORIES[draw.two.category]
    get, api = draw.one.first("get", "city"), draw.two.first("list", category.key)
    if get is None or api is None or category.group != "city":
        return None
    item = draw.item()
    best = cheapest(listings_of(draw.store, draw.two, draw.split, item.values["city"]))
    if best is None:
        return None
    query = draw.say("nearby", n=item.name, noun=category.noun)
    return draw.plan("nearby", query, [*use(draw.one, item, get), call(draw.two, api, item.values["city"])], best.name)


def abroad(draw: PairDraw) -> Plan | None:
    get, api = draw.one.first("get", "price"), draw.two.first("convert")
    if get is None or api is None:
        return None
    item = draw.item()
    currency = draw.rng.choice(draw.store.at(draw.two, draw.split))
    price = item.values["price"]
    calls = [*use(draw.one, item, get), *use(draw.two, currency, api, **{api.count: price})]
    return draw.plan(
        "abroad", draw.say("abroad", n=item.name, c=currency.name), calls, converted(currency.values["rate"], price)
    )


PairWriter = Callable[[PairDraw], Plan | None]
SAME_CATEGORY: tuple[tuple[PairWriter, int], ...] = ((where, 40), (either, 60), (elsewhere, 14), (act_where, 6))
SAME_COLLECTION: tuple[tuple[PairWriter, int], ...] = ((weather, 50), (nearby, 26), (abroad, 10))

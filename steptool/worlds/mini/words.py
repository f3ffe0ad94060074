"""Vocabularies of the bundled world. No word serves two splits, so no name can occur in two.

A name is copied from the middle of a sentence to behind a quotation mark. Words that names begin with are one
token of SmolLM2 in both places; most others are two tokens there and one here, which a small model misspells.
"""

from __future__ import annotations

from steptool.worlds.base import Split

_TRAIN = {
    "adjective": "Golden Western Royal Quick Curious Sweet Modern Rapid Yellow Dark Empty Friendly Little Cold Secret",
    "noun": "Lantern Harbor Orchard Falcon Garden Mirror Bridge Canyon Compass Forest Island Meadow Raven Tower Willow",
    "first": "Anna Peter Maria James Simon Victor Martin Emily Charles Daniel Sarah Thomas Jane Lily Jack",
    "last": "Grant Young Clark Davis Jackson Jones Miller Newton Scott Smith Taylor Wilson Hall Stone Bell",
    "city": "Lisbon Oslo Denver Kyoto Naples Dublin Vienna Lima Boston Prague Cairo Milan Perth Geneva",
    "country": "Portugal Norway Japan Italy Ireland Austria Peru Egypt Brazil Poland Kenya Chile Greece Canada",
    "currency": "euro|yen|krone|peso|zloty|pound|rand|shekel|franc|krona|lev|sol",
    "type": "kettle lamp chair backpack toaster blender jacket desk tent camera sofa watch drill mixer",
}
_DEV = {
    "adjective": "Ancient Brown Electric Fresh Happy Open Silver Soft",
    "noun": "Candle Castle Desert Engine Feather Glacier Hammer Jungle",
    "first": "Alice David Frank Henry Jacob Mary Paul Rose",
    "last": "Adams Hill Johnson Lee Marsh Ross Snow Webster",
    "city": "Madrid Seattle Zurich Athens Havana Munich Nairobi Sydney",
    "country": "Spain Germany Cuba Australia Finland Mexico Turkey Iceland",
    "currency": "lira|dinar|baht|guilder|leu|ruble|mark|drachma",
    "type": "heater carpet bicycle guitar printer helmet pillow ladder",
    "topic": "Drawing French Greek Latin Music Programming Spanish Writing",
    "level": "basics workshop masterclass",
}
_TEST = {
    "adjective": "Black Blue Early Eastern Grand Green Northern Patient Rich Smart Solar Southern Strong White Wild",
    "noun": "Anchor Blossom Crystal Dragon Eagle Fountain Horizon "
    "Kingdom Lighthouse Mountain Ocean Palace River Temple Voyage",
    "first": "Adam Andrew Anne Arthur Carl Elizabeth George Joseph Leon Luke Marie Richard Robert Samuel William",
    "last": "Anderson Bird Collins Cook Cross Darwin King Lake Lewis Lincoln Marx Prince Washington Williams Wood",
    "city": "Berlin Chicago Toronto Seoul Bergen Glasgow Valencia Bogota Houston Warsaw Tunis Florence Auckland Lyon",
    "country": "Sweden Denmark France India Korea Scotland Colombia "
    "Morocco Hungary Belgium Vietnam Uruguay Croatia Nepal",
    "currency": "rupee|won|dirham|forint|koruna|real|ringgit|lek|taka|rial|dong|kuna",
    "type": "speaker mattress freezer scooter violin monitor pan shovel bench fan clock radio bucket rug",
}


def _lists(words: dict[str, str]) -> dict[str, tuple[str, ...]]:
    return {kind: tuple(text.split("|") if "|" in text else text.split()) for kind, text in words.items()}


WORDS: dict[Split, dict[str, tuple[str, ...]]] = {"train": _lists(_TRAIN), "dev": _lists(_DEV), "test": _lists(_TEST)}


def people(split: Split) -> tuple[str, ...]:
    """Full names; the pairing is shifted so that first and last names do not determine each other."""
    first, last = WORDS[split]["first"], WORDS[split]["last"]
    return tuple(f"{first[i]} {last[(3 * i + shift) % len(last)]}" for shift in (0, 1, 2) for i in range(len(first)))

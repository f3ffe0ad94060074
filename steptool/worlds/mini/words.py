"""Vocabularies of the bundled world. No word serves two splits, so no name can occur in two.

Ordinary words, because a small model copies them in one or two tokens each.
"""

from __future__ import annotations

from steptool.worlds.mini.schema import Split

_TRAIN = {
    "adjective": "Amber Silent Crimson Hidden Golden Broken Distant "
    "Frozen Gentle Hollow Lonely Misty Silver Stormy Velvet",
    "noun": "Lantern Harbor Orchard Falcon Garden Mirror Bridge Canyon Compass Forest Island Meadow Raven Tower Willow",
    "first": "Anna Peter Maria James Helen Oscar Laura Simon Clara Victor Nora Martin Julia Felix Emma",
    "last": "Lund Baker Rossi Carter Weber Novak Fisher Grant Meyer Parker Silva Turner Walsh Young Hughes",
    "city": "Lisbon Oslo Denver Kyoto Naples Dublin Vienna Lima Boston Prague Cairo Milan Perth Geneva",
    "country": "Portugal Norway Japan Italy Ireland Austria Peru Egypt Brazil Poland Kenya Chile Greece Canada",
    "currency": "euro|yen|krone|peso|zloty|pound|rand|shekel|franc|krona|lev|sol",
    "type": "kettle lamp chair backpack toaster blender jacket desk tent camera sofa watch drill mixer",
}
_DEV = {
    "adjective": "Bright Ancient Purple Quiet Restless Scarlet Tender Wooden",
    "noun": "Candle Castle Desert Engine Feather Glacier Hammer Jungle",
    "first": "Alice Bruno Carla David Elena Frank Grace Henry",
    "last": "Adams Bauer Costa Dixon Evans Ferrari Gomez Hansen",
    "city": "Madrid Seattle Zurich Athens Havana Munich Nairobi Sydney",
    "country": "Spain Germany Cuba Australia Finland Mexico Turkey Iceland",
    "currency": "lira|dinar|baht|guilder|leu|ruble|mark|drachma",
    "type": "heater carpet bicycle guitar printer helmet pillow ladder",
    "topic": "Pottery Sailing Chess Baking Yoga Drawing Spanish Piano",
    "level": "basics workshop masterclass",
}
_TEST = {
    "adjective": "Burning Clever Endless Fading Green Humble Icy Jade Lucky Marble Northern Patient Rusty Sunny Wild",
    "noun": "Anchor Blossom Crystal Dragon Eagle Fountain Horizon "
    "Kingdom Lighthouse Mountain Ocean Palace River Temple Voyage",
    "first": "Adam Bella Carl Diana Eric Fiona George Hanna Ivan Kate Leon Monica Nathan Paula Robert",
    "last": "Archer Bennett Collins Duncan Ellis Foster Gibson Harris Jensen Keller Lopez Morgan Nelson Owens Price",
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

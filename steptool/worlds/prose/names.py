"""Whether an answer in prose names what was expected, and nothing else that could be an answer.

Every word of the answer must be one of these:

    a word of what is expected          Nora Lund, whole words only: not Nora Lunde, not nora-lund.example
    a word that is no answer itself     The author is ...            (`words`)
    a word of the question              ... of Dune
    a number, not an id (b12)           unless what is expected holds numbers
    not asserted                        ..., not Peter Carter        (`clauses`)

So an answer that names a second candidate is refused, in whatever way it is named, and so is one that tells more than
was asked. In a question that offers its answers ("the Amber Inn or the Misty Inn?") they are no words to be repeated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from steptool.worlds.prose.clauses import DENIES, asserted, disclaims, plain
from steptool.worlds.prose.number_words import NUMBER_WORDS
from steptool.worlds.prose.words import COMMON, CORE, THINGS

_WORD = re.compile(r"[^\s\"()\[\]{}<>*`|=•·—]+")
_EDGES = ".,;:!?…'_~–-"
_FIRST_PLACE = 0xF0000
"""Characters of a private plane stand for the expected names while the rest is read; an answer holds none."""
_PRIVATE = re.compile(r"[\U000F0000-\U0010FFFF]")
_MARKER = re.compile(r"^[ \t]*(?:[-–*•·]|\d{1,3}[.)])(?=[ \t])", re.MULTILINE)
_AMOUNT = re.compile(r"[$€£+-]?\d[\d.,:/-]*(?:[^\W\d]{1,3}|[%°$€£])?")
_ARTICLE = re.compile(r"\A(?:the|an?)\s+(?=\S)")
_RANGE = re.compile(r"[\U000F0000-\U0010FFFF]\s*(?:to|through|until|-|–)\s*[\U000F0000-\U0010FFFF]")
_BOUND = re.compile(r"\b(?:before|after|until|since|over|under|above|below)\s+[\U000F0000-\U0010FFFF]")
_DENIED_AFTER = re.compile(
    r"[\U000F0000-\U0010FFFF](?:(?!\bbut\b)[^,.;:!?(\n])*?"
    r"(?:(?<!and )\bnot\b|n't\b|\b(?:never|cannot|wrong|false|incorrect|untrue)\b)"
)
_AND_OTHERS = re.compile(
    r"\b(?:(?:and|or)\s+(?:more|others?|so on|the like)|etc|among|amongst|such as|at least|for example|e\.g)\b"
)


def names_exactly(expected: Sequence[str], answer: str, question: str = "") -> bool:
    """Whether `answer` asserts each of the `expected` names, in any order, and names nothing else.

    `question` is what was asked: an answer may repeat its words.
    """
    items = [" ".join(plain(item).casefold().split()).strip(_EDGES + ' "') for item in expected]
    if not all(items):
        return False
    have_digits = any(re.search(r"\d", item) for item in items)
    text = plain(_PRIVATE.sub(" ", answer)).casefold()
    text = _with_places(items, text if have_digits else _MARKER.sub(lambda match: " " * len(match[0]), text))
    refusals = (_RANGE, _DENIED_AFTER, _AND_OTHERS, *([_BOUND] if have_digits else []))
    if disclaims(text) or any(refusal.search(text) for refusal in refusals):
        return False
    if items in (["yes"], ["true"]) and asserted(text) != text:  # "Yes, it is not in stock"
        return False
    allowed = _allowed(expected, items, plain(question))
    found = set()
    for match in _WORD.finditer(asserted(text)):
        word = match[0].strip(_EDGES).removesuffix("'s").lstrip("#")
        if len(word) == 1 and ord(word) >= _FIRST_PLACE:
            found.add(ord(word) - _FIRST_PLACE)
        elif not allowed(word):
            return False
    return len(found) == len(items)


def says(name: str, text: str) -> bool:
    """Whether `name` stands in `text` in whole words, whatever is said of it."""
    words = " ".join(plain(name).casefold().split())
    text = plain(_PRIVATE.sub(" ", text)).casefold()
    return bool(words.strip(_EDGES)) and _with_places([words], text) != text


def _with_places(items: Sequence[str], text: str) -> str:
    """`text` with one character in the place of each name: the longest names first."""
    order = sorted(range(len(items)), key=lambda index: -len(items[index]))
    for index in order:
        name = r"\s+".join(map(re.escape, _ARTICLE.sub("", items[index]).split()))
        whole = rf"(?<!\w)(?<!\w[-/.@'&:])(?:(?:the|an?)\s+)?{name}(?![\w+#])(?![-/.@&:]\w)(?!'(?!s\b)\w)"
        if items[index] in DENIES:  # "no" is an answer where nothing follows: not in "no copies"
            whole += r"(?=\s*(?:[,.;:!?\")\]}]|\Z))"
        text = re.sub(whole, chr(_FIRST_PLACE + index), text)
    return text


class _Allowed:
    def __init__(self, words: frozenset[str], stems: frozenset[str], with_numbers: bool) -> None:
        self._words, self._stems, self._with_numbers = words, stems, with_numbers

    def __call__(self, word: str) -> bool:
        if not word or word in self._words or _stem(word) in self._stems:
            return True
        return self._with_numbers and (word in NUMBER_WORDS or bool(_AMOUNT.fullmatch(word)))


def _allowed(expected: Sequence[str], items: Sequence[str], question: str) -> _Allowed:
    are_names = all(item != item.casefold() or re.search(r"\d", item) for item in expected)
    own = {word for item in items for word in item.split()}
    beside = CORE
    if are_names:
        are_long = all(" " in item or re.search(r"\d", item) for item in items)
        beside = CORE | COMMON | THINGS if are_long else CORE | COMMON
    words = CORE if any(set(item.split()) <= beside for item in items) else beside
    with_numbers = not any(re.search(r"\d", item) or NUMBER_WORDS & set(item.split()) for item in items)
    asked = [word for word in (match[0].strip(_EDGES) for match in _WORD.finditer(question)) if word]
    if _offers(items, question):
        asked = _beside_the_offer(asked, own, are_names)
    stems = frozenset(_stem(word.casefold()) for word in asked) - {"or", "nor", "either"}
    return _Allowed(words, stems, with_numbers)


def _offers(items: Sequence[str], question: str) -> bool:
    """Whether the question may name the answer among others."""
    asked = question.casefold()
    return "or" in asked.split() or any(_with_places([item], asked) != asked for item in items)


def _beside_the_offer(asked: Sequence[str], own: set[str], are_names: bool) -> list[str]:
    """Words of the question that are none of the answers that it offers: they are told apart by their capitals."""
    if not are_names:
        return [word for word in asked[1:] if word != word.casefold()]
    in_small = [word for word in asked if word == word.casefold()]
    return [] if (own - CORE) & set(in_small) else in_small


def _stem(word: str) -> str:
    for ending in ("'s", "ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word.removesuffix("e") if len(word) > 4 else word

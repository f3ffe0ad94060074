"""The one number that an answer in prose asserts, read without knowing what was expected.

Every number of the answer is of one of these kinds; the first kind that occurs decides, and must hold one value only.

    the answer    It costs $12.50.   twelve and a half   1,250.00   1.250,00   4.5/5   4.5 out of 5   1.2 million
    a rate        12.50 each, 80 per night
    worked with   2 * 12.50 = ...: what stands before the sign
    a year        in 1965, (1965)
    a label       room 12, page 3, "1984"
    asked about   numbers of the question, as in "There are 3 hotels with 4 stars"
    a marker      1. at the beginning of a line; the word "one"

No number at all: part of a name or id (b12, A-12, COVID-19), a time, a date, an ordinal (3rd), a bound (over 4, 4 or
more), the 5 of "4 out of 5". Where signs leave open what is meant (3/4, 10-12, 12k) both readings count, so there are
two values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from steptool.worlds.prose.clauses import asserted, disclaims, plain
from steptool.worlds.prose.number_words import MULTIPLES, read_number_words
from steptool.worlds.prose.words import word_set


class Kind(IntEnum):
    answer = 0
    rate = 1
    worked_with = 2
    year = 3
    label = 4
    asked_about = 5
    marker = 6


@dataclass(frozen=True)
class _Found:
    value: float
    kind: Kind
    is_listed: bool
    """Whether another number stands beside it: "3 or 4"."""


@dataclass(frozen=True)
class _Token:
    text: str
    """Casefolded, without the punctuation around it."""
    before: str
    """The character before it, and the one behind it."""
    after: str
    gap: str
    """What stands between it and the token before."""


MOST_OF_A_RANGE = 9
"""Digits of two numbers with a dash between them; more are an id."""
_WORKED = re.compile(r"\d\s*[*×÷+/x-]\s*[$€£]?\d[^=\n]*=")
_TOKEN = re.compile(r"[^\s\"()\[\]{}<>*`=|;!?×÷]+|=")
_EDGES = ",.:'_~…"
_CURRENCY = r"(?:us\$|[a-z]{0,2}[$€£¥₹]|usd|eur|gbp|jpy|chf|cad|aud|nok|sek|dkk|inr|rs\.?)"
_UNIT = (
    r"(?:[$€£¥₹%‰°]|°[cfk]|usd|eur|gbp|jpy|chf|cad|aud|nok|sek|dkk|inr|euros?|dollars?|cents?|percent|"
    r"[kmcdμµn]?m[²³23]?|[kmμµ]?g|lbs?|oz|[mc]?l|[kmgt]?i?b|[kmg]?hz|[kmg]?wh?|[km]?v|m?a|[kmh]?pa|km/h|mph|m/s|kbps|mbps|"
    r"s|ms|h|hrs?|mins?|secs?|days?|ft|in|mi|c|f|px|pts?)"
)
_RATE = r"(?:night|day|week|month|year|hour|h|person|head|piece|unit|item|copy|kg|km|litre|liter)"
_SHAPES = (
    (re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?"), ","),
    (re.compile(r"\d{1,3}(?:'\d{3})+(?:\.\d+)?"), "'"),
    (re.compile(r"\d+(?:\.\d+)?|\.\d+"), None),
)
_EUROPEAN = re.compile(r"(?:\d{1,3}(?:\.\d{3})+|\d+),\d{1,2}")
_AMOUNT = re.compile(rf"([-+–]?){_CURRENCY}?([-+–]?)(\.?\d[\d.,']*){_UNIT}?(?:/{_RATE})?")
_IGNORED = re.compile(
    r"\d{1,2}:\d{2}(?::\d{2})?(?:[ap]m)?|\d{1,4}([-/.])\d{1,2}\1\d{1,4}|\d+(?:st|nd|rd|th)|.*\+|\d{1,2}[ap]m"
)
_SHARE = re.compile(r"(\d+(?:\.\d+)?)/(5|10|100)")
_SIGNS_ONLY = re.compile(rf"(?:{_CURRENCY})?[\d.,'/:–~-]+k?{_UNIT}?")
_ANY_NUMBER = re.compile(r"\d+(?:\.\d+)?")

_MONTHS = word_set(
    "january february march april may june july august september october november december "
    "jan feb mar apr jun jul aug sep sept oct nov dec"
)
_BEFORE_YEARS = word_set("in since year from until by of before after")
_LABELS = word_set(
    "room page chapter version order step item table line number no id flight gate platform bus route level section "
    "part volume invoice ticket seat floor building apartment isbn phone tel"
)
_BOUNDS = word_set("over under above below exceeding beyond")
_BOUND_PAIRS = frozenset({("at", "least"), ("at", "most"), ("up", "to"), ("as", "high"), ("as", "low")})
_OR_MORE = word_set("more less higher lower above below better fewer greater up over under")


def said_number(answer: str, question: str = "") -> float | None:
    """The number that `answer` asserts; None where it asserts none, or more than one, or disclaims itself.

    `question` is what was asked: its numbers are not taken for the answer where there is another one.
    """
    if disclaims(plain(answer)):
        return None
    asked = numbers_in(question)
    by_kind: dict[Kind, set[float]] = {}
    for found in _numbers(asserted(plain(answer))):
        kind = max(found.kind, Kind.asked_about) if found.value in asked and not found.is_listed else found.kind
        by_kind.setdefault(kind, set()).add(found.value)
    values = by_kind[min(by_kind)] if by_kind else set()
    return values.pop() if len(values) == 1 else None


def numbers_in(text: str) -> set[float]:
    """Every number of a text, whatever is said of it."""
    return {found.value for found in _numbers(plain(text))}


def _numbers(text: str) -> Iterator[_Found]:
    text = re.sub(r"(?<=\d)\u00a0(?=\d{3}(?!\d))", ",", text)
    tokens = list(_tokens(text))
    texts = [token.text for token in tokens]
    signs = [index for index, each in enumerate(texts) if each == "="] if _WORKED.search(text) else []
    result = max(signs, default=-1)
    read = list(_read(texts))
    kind, markers = Kind.answer, 0
    for place, (index, used, values) in enumerate(read):
        end = read[place - 1][0] + read[place - 1][1] if place else None
        following = read[place + 1][0] if place + 1 < len(read) else None
        goes_on = _joins(tokens, end, index)
        is_listed = goes_on or _joins(tokens, index + used, following)
        if _marks_a_line(tokens, index) and tokens[index].text == str(markers + 1):
            kind, markers = Kind.marker, markers + 1
        elif not (goes_on and kind == Kind.label and end is not None and _is_listed_with(tokens, end, index)):
            kind = _kind(tokens, texts, index, used)
            if kind == Kind.marker and is_listed:
                kind = Kind.answer  # "one or two"
        for value in values:
            yield _Found(value, Kind.worked_with if index < result and kind == Kind.answer else kind, is_listed)


def _read(texts: Sequence[str]) -> Iterator[tuple[int, int, list[float]]]:
    """Where a number begins, how many tokens it takes, and what it may be."""
    index = 0
    while index < len(texts):
        values, used = _values(texts, index)
        if values:
            yield index, used, values
        index += used


def _joins(tokens: Sequence[_Token], end: int | None, begin: int | None) -> bool:
    """Whether nothing but a word such as `or` stands between two numbers."""
    if end is None or begin is None or tokens[begin].before == "(":
        return False
    return begin == end or (begin == end + 1 and tokens[end].text in ("or", "and", "to", "-", "–"))


def _is_listed_with(tokens: Sequence[_Token], end: int, begin: int) -> bool:
    """Whether a list goes on with this label, as 18 does in "orders 17 and 18"."""
    gaps = "".join(token.gap for token in tokens[end : begin + 1])
    return (
        bool(re.fullmatch(r"#?\d+", tokens[begin].text)) and not re.search(r"[.;\n]", gaps) and tokens[end].text != "or"
    )


def _tokens(text: str) -> Iterator[_Token]:
    end = 0
    for match in _TOKEN.finditer(text):
        raw = match[0]
        kept = raw.rstrip(_EDGES)
        gap = text[end : match.start()] if end else "\n"
        end = match.start() + len(kept)
        stripped = kept.lstrip(",:'_~…").casefold()
        parts = stripped.split("-") if stripped.replace("-", "").isalpha() else [stripped]
        for place, part in enumerate(parts):
            yield _Token(part, text[match.start() - 1 : match.start()], text[end : end + 1], "-" if place else gap)


def _values(texts: Sequence[str], index: int) -> tuple[list[float], int]:
    """What the tokens from `index` on say: no value, one, or several where it is open which; and how many tokens."""
    text = texts[index]
    if not any(map(str.isdigit, text)):
        words = read_number_words(texts[index : index + 12])
        return ([_signed(words[0], texts, index)], words[1]) if words else ([], 1)
    before, _, last = text.rpartition("/")
    if not text.isascii() and not any(map(str.isdigit, before)):  # Größe/25
        text = last
    if not text.isascii() and not text.translate({ord(sign): None for sign in "–€£¥₹°²³μµ‰"}).isascii():
        return [], 1
    if share := _SHARE.fullmatch(text):
        return [float(share[1])], 1
    if _IGNORED.fullmatch(text) or _is_beside_the_point(texts, index):
        return [], 1
    amount = _AMOUNT.fullmatch(text)
    value = _value(amount[3]) if amount else None
    if amount and value is not None:
        value = -value if {amount[1], amount[2]} & {"-", "–"} else value
        multiple = MULTIPLES.get(texts[index + 1], 0) if index + 1 < len(texts) else 0
        return [_signed(value * (multiple or 1), texts, index)], 2 if multiple else 1
    if "-" in text and sum(map(str.isdigit, text)) > MOST_OF_A_RANGE:  # a number of a phone, of a book
        return [], 1
    if _SIGNS_ONLY.fullmatch(text):  # 10-12, 3/4, 12,13: whichever is meant
        values = [float(each) for each in _ANY_NUMBER.findall(text)]
        return (values if len(values) > 1 else [*values, values[0] * 1000]), 1
    parts = [_AMOUNT.fullmatch(part) for part in text.split("/")] if "/" in text else []
    return [value for part in parts if part and (value := _value(part[3])) is not None], 1


def _value(digits: str) -> float | None:
    if _EUROPEAN.fullmatch(digits):
        return float(digits.replace(".", "").replace(",", "."))
    for shape, separator in _SHAPES:
        if shape.fullmatch(digits):
            return float(digits.replace(separator, "") if separator else digits)
    return None


def _signed(value: float, texts: Sequence[str], index: int) -> float:
    return -value if index and texts[index - 1] in ("minus", "negative") else value


def _is_beside_the_point(texts: Sequence[str], index: int) -> bool:
    """A day of a month, a bound, the whole of "3 out of 5"."""
    if "/" in texts[index]:
        return False
    before, after = list(texts[max(0, index - 3) : index]), list(texts[index + 1 : index + 3])
    if re.fullmatch(r"[0-9]{1,2}", texts[index]) and int(texts[index]) <= 31 and _MONTHS & {*before[-1:], *after[:1]}:
        return True
    if before[-1:] and (before[-1] in _BOUNDS or tuple(before[-2:]) in _BOUND_PAIRS):
        return True
    if after[:1] == ["or"] and after[1:] and after[1] in _OR_MORE:
        return True
    if before[-2:] == ["out", "of"]:
        return True
    return (before[-1:] == ["of"] and len(before) > 1 and _is_number(before[-2])) or (
        before[-2:] == ["of", "the"] and len(before) > 2 and _is_number(before[-3])
    )


def _is_number(text: str) -> bool:
    return _value(text) is not None or read_number_words([text]) is not None


def _marks_a_line(tokens: Sequence[_Token], index: int) -> bool:
    begins_text = index + 1 < len(tokens) and "\n" not in tokens[index + 1].gap
    return "\n" in tokens[index].gap and tokens[index].after in (".", ")") and begins_text


def _kind(tokens: Sequence[_Token], texts: Sequence[str], index: int, used: int) -> Kind:
    token, before = tokens[index], texts[index - 1] if index else ""
    after = texts[index + used : index + used + 2]
    if token.text == "one" and used == 1:
        return Kind.marker
    unit = after[:1] if after[:1] and after[0].isalpha() else []
    if re.search(rf"/{_RATE}$", token.text) or {"each", "apiece", "per"} & {*after[:1], *(after[1:] if unit else [])}:
        return Kind.rate
    if re.fullmatch(r"1\d{3}|20\d{2}", token.text) and (
        before in _BEFORE_YEARS or _MONTHS & set(texts[max(0, index - 2) : index]) or token.before == "("
    ):
        return Kind.year
    is_labelled = (before in _LABELS and token.gap == " ") or (
        before.removesuffix("s") in _LABELS and not re.search(r"[,.;\n]", token.gap)
    )
    if is_labelled or token.text.startswith("#") or token.before == '"':
        return Kind.label
    return Kind.answer

"""English number words as numbers: "two hundred and five" is 205, "twelve and a half" 12.5, "a dozen" 12.

No library is used: word2number takes "twelve thirteen" for one number and num2words only writes them, and text2num
leaves the small numbers of a sentence as words unless more of them follow.
"""

from __future__ import annotations

from collections.abc import Sequence

_TO_NINETEEN = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen
"""
_SMALL = {word: value for value, word in enumerate(_TO_NINETEEN.split())}
_ROUND = "twenty thirty forty fifty sixty seventy eighty ninety"
_TENS = {word: 10 * value for value, word in enumerate(_ROUND.split(), start=2)}
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
MULTIPLES = {**SCALES, "hundred": 100, "dozen": 12}
"""What a number in digits may be followed by: "1.2 million"."""
NUMBER_WORDS = frozenset({*_SMALL, *_TENS, *MULTIPLES})


def read_number_words(words: Sequence[str]) -> tuple[float, int] | None:
    """The number that casefolded `words` begin with, and how many of them it takes; None where they begin with none."""
    value, used, below = 0, 0, max(SCALES.values()) * 1000
    while part := _below_thousand(words[used:], is_first=used == 0):
        number, taken = part
        scale = SCALES.get(_at(words, used + taken), 1)
        if scale >= below:
            break
        value, used, below = value + number * scale, used + taken + (scale > 1), scale
        if scale == 1:
            break
    if not used:
        return None
    return _with_fraction(words, value, used)


def _below_thousand(words: Sequence[str], is_first: bool) -> tuple[int, int] | None:
    skipped = 1 if not is_first and _at(words, 0) == "and" else 0
    words = words[skipped:]
    if is_first and _at(words, 0) == "a" and _at(words, 1) in MULTIPLES:
        if words[1] in SCALES:
            return 1, 1
        return MULTIPLES[words[1]], 2
    hundreds, used = 0, 0
    if _at(words, 0) in _SMALL and _at(words, 1) == "hundred":
        hundreds, used = _SMALL[words[0]] * 100, 2
        rest = _below_hundred(words[used + (_at(words, used) == "and") :])
        if rest is None:
            return hundreds, used + skipped
        used += _at(words, used) == "and"
    if _at(words, 0) in _SMALL and _at(words, 1) == "dozen":
        return _SMALL[words[0]] * 12, 2 + skipped
    rest = _below_hundred(words[used:])
    if rest is None:
        return None
    return hundreds + rest[0], used + rest[1] + skipped


def _below_hundred(words: Sequence[str]) -> tuple[int, int] | None:
    first, second = _at(words, 0), _at(words, 1)
    if first in _TENS:
        return (_TENS[first] + _SMALL[second], 2) if 1 <= _SMALL.get(second, 0) <= 9 else (_TENS[first], 1)
    return (_SMALL[first], 1) if first in _SMALL else None


def _with_fraction(words: Sequence[str], value: int, used: int) -> tuple[float, int]:
    rest = tuple(words[used : used + 3])
    if rest == ("and", "a", "half"):
        return value + 0.5, used + 3
    if rest == ("and", "a", "quarter"):
        return value + 0.25, used + 3
    digits = ""
    while rest[:1] == ("point",) and _SMALL.get(_at(words, used + 1 + len(digits)), 10) <= 9:
        digits += str(_SMALL[words[used + 1 + len(digits)]])
    return (float(f"{value}.{digits}"), used + 1 + len(digits)) if digits else (value, used)


def _at(words: Sequence[str], index: int) -> str:
    return words[index] if index < len(words) else ""

"""mine                     theirs                   likeness
"a blue sofa"            "a blue sofas"           22 / 23: twice the 11 letters in common, over all 23
2,000 letters, one new   2,000 letters            1999 / 2000
2,001 letters, one new   2,001 letters            0: too long to be compared letter by letter
"""

from __future__ import annotations

import pytest

from steptool.worlds.likeness import MOST_LETTERS, likeness


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        ("a blue sofa", "a blue sofas", 22 / 23),
        ("b" + "a" * (MOST_LETTERS - 1), "c" + "a" * (MOST_LETTERS - 1), 1 - 1 / MOST_LETTERS),
        ("b" + "a" * MOST_LETTERS, "c" + "a" * MOST_LETTERS, 0.0),
        ("a" * 100_000, "a" * 100_000, 1.0),
    ],
)
def test_short_texts_are_near_and_long_ones_equal_or_not(mine: str, theirs: str, expected: float) -> None:
    assert likeness({"q": mine}, {"q": theirs}) == pytest.approx(expected)

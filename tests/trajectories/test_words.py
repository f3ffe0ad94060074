"""Values are whole words: `417` is not in `bk417`, `12.50` is in `It costs $12.5.`"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steptool.trajectories.words import is_empty, leaves, parse, run, values, words

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It costs $12.50.", ["it", "costs", "12.5"]),
        ("1,200.00 people", ["1200", "people"]),
        ("a,b, c", ["a", "b", "c"]),
        ("id: BK-0417", ["id", "bk-0417"]),
        ("0417", ["0417"]),
        ("09:30 price=3", ["09:30", "price", "3"]),
        ('["x","y"]', ["x", "y"]),
        ("-0.0", ["0"]),
        (" ., ", []),
    ],
)
def test_words_have_one_spelling(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("inner", "outer", "held"),
    [
        ("417", "bk417", False),
        ("417", "the 417 bus", True),
        ("New York", "a flight to new york!", True),
        ("New York", "new old york", False),
        ("12.50", "12.5", True),
        ("art", "start", False),
    ],
)
def test_a_text_holds_another_by_whole_words(inner: str, outer: str, held: bool) -> None:
    assert (run(inner) in run(outer)) is held


def test_joined_runs_never_match_across_the_seam() -> None:
    assert run("a b") not in run("x a") + run("b y")


def test_prose_gives_the_words_that_hold_digits() -> None:
    assert values("Your booking is confirmed, code QX81.") == [
        run("your booking is confirmed code qx81"),
        run("qx81"),
    ]


def test_booleans_and_nulls_are_no_values_but_a_boolean_is_not_empty() -> None:
    assert leaves({"a": True, "b": None, "c": [1, "x"]}) == ["1", "x"]
    assert not is_empty({"ok": True})
    assert all(map(is_empty, (None, "", " ", [], {}, {"a": [None, ""]})))


def test_hostile_nesting_is_read_as_text() -> None:
    deep = "[" * 100_000
    assert parse(deep) == deep
    assert values(deep) == []


@given(JSON)
def test_every_value_of_a_reply_is_found_in_that_reply(reply: object) -> None:
    text = json.dumps(reply)
    held = "".join(run(leaf) for leaf in leaves(parse(text)))
    assert all(value in held for value in values(text))

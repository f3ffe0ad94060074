"""Answers in prose are right where they say the right thing, and only that.

answers_corpus.jsonl      right and wrong sentences, written by hand, one expected answer a line
whatever is said          is right for one answer at most
strictly right            is right in prose, too; "1.2 million" is not 1.2, though
a second candidate        makes a right answer wrong
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from steptool.core.types import AnswerCheck
from steptool.worlds.answers import MAX_PROSE, is_correct
from steptool.worlds.prose.clauses import DENIES
from steptool.worlds.prose.number_words import MULTIPLES, read_number_words

CORPUS = [json.loads(line) for line in Path(__file__).with_name("answers_corpus.jsonl").read_text().splitlines()]


def check_of(expected: Any, *, tolerance: float = 0.0, strict: bool = False) -> AnswerCheck:
    kind: Any = "text" if isinstance(expected, str) else "set" if isinstance(expected, list) else "number"
    return AnswerCheck(kind=kind, expected=expected, tolerance=tolerance, strict=strict)


@pytest.mark.parametrize("row", CORPUS, ids=lambda row: f"{row['expected']}-{row['question'][:30]}")
def test_sentences_are_judged_as_a_person_would(row: dict[str, Any]) -> None:
    check = AnswerCheck(kind=row["kind"], expected=row["expected"], tolerance=row.get("tolerance", 0.0), strict=False)
    refused = [answer for answer in row["right"] if not is_correct(check, answer, row["question"])]
    accepted = [answer for answer in row["wrong"] if is_correct(check, answer, row["question"])]
    assert (refused, accepted) == ([], [])


def test_the_corpus_is_large_and_says_nothing_twice() -> None:
    for side in ("right", "wrong"):
        assert sum(len(row[side]) for row in CORPUS) >= 200
    for row in CORPUS:
        assert not set(row["right"]) & set(row["wrong"])


def test_a_strict_check_takes_none_of_the_sentences() -> None:
    assert is_correct(check_of(12.5), "It costs 12.5.")
    assert not is_correct(check_of(12.5, strict=True), "It costs 12.5.")
    assert not is_correct(check_of("Nora Lund", strict=True), "The author is Nora Lund.")


# Whatever is said is right for one answer at most

JOINTS = [
    *(
        " or ",
        " and ",
        ", ",
        "; ",
        ". ",
        "\n",
        " ",
        "/",
        "-",
        " to ",
        " = ",
        " is ",
        " not ",
        ", not ",
        " but ",
        " than ",
    ),
    *(" (", ") ", "? ", ": ", " if ", "\n- ", "\n1. ", " | ", " versus ", " no ", " isn't ", " of ", " each ", " per "),
    *(" in ", " room ", " wrong ", '" "', " out of ", " neither ", " nor ", " either ", " the answer is "),
]


def said(*candidates: str) -> st.SearchStrategy[str]:
    words = st.sampled_from([*candidates, "it", "the answer", "is", "costs", "wrote", "Dune", "yes", "5", "one"])
    pairs = st.lists(st.tuples(st.sampled_from(JOINTS), words), min_size=1, max_size=8)
    return pairs.map(lambda found: "".join(part for pair in found for part in pair))


QUESTIONS = st.sampled_from(
    ["", "What does Dune cost?", "12.5 or 13?", "Nora Lund or Peter Carter?", "nora lund or peter carter?",
     "Is it shipped or pending?", "Does Nora Lund or Peter write?", "What of 13 and Peter Carter is pending?"]
)  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(said("12.5", "13", "twelve and a half", "$13", "12.50", "13.0"), QUESTIONS)
def test_no_wording_is_right_for_two_numbers(answer: str, question: str) -> None:
    assert sum(is_correct(check_of(value), answer, question) for value in (12.5, 13, 5, 1, -13, -12.5)) <= 1


@settings(max_examples=1500, deadline=None)
@given(said("Nora Lund", "Peter Carter", "nora lund", "PETER CARTER", "Lund", "Carter"), QUESTIONS)
def test_no_wording_is_right_for_two_names(answer: str, question: str) -> None:
    assert sum(is_correct(check_of(name), answer, question) for name in ("Nora Lund", "Peter Carter")) <= 1


@settings(max_examples=1500, deadline=None)
@given(said("shipped", "pending", "Shipped", "yes", "no"), QUESTIONS)
def test_no_wording_is_right_for_two_states(answer: str, question: str) -> None:
    assert sum(is_correct(check_of(state), answer, question) for state in ("shipped", "pending", "yes", "no")) <= 1


@settings(max_examples=1000, deadline=None)
@given(said("A1", "B2", "C3", "Amber Inn", "Misty Inn"), QUESTIONS)
def test_no_wording_is_right_for_two_sets(answer: str, question: str) -> None:
    sets = (["A1"], ["B2"], ["A1", "B2"], ["Amber Inn"], ["Misty Inn"], ["Misty Inn", "Amber Inn"])
    assert sum(is_correct(check_of(items), answer, question) for items in sets) <= 1


# Strictly right is right in prose


@settings(max_examples=500, deadline=None)
@given(
    st.floats(-1e6, 1e6).map(lambda value: round(value, 3)),
    st.sampled_from(
        ["{}", " {} ", "${}", "€ {}", "{} USD", "{}%", "{} kg", "{}.", '"{}"', "{}°C", "{} nights", "{} b"]
    ),
)
def test_a_number_that_is_strictly_right_is_right(value: float, form: str) -> None:
    answer = form.format(f"{value:.3f}")
    assume(is_correct(check_of(value, strict=True), answer))
    assert is_correct(check_of(value), answer)


@settings(max_examples=500, deadline=None)
@given(st.text(min_size=1, max_size=30), st.text(max_size=40), st.text(max_size=40))
def test_a_text_that_is_strictly_right_is_right(expected: str, answer: str, question: str) -> None:
    assume(expected.strip(" .\"'\t\r\n"))
    for said in (answer, expected, f' "{expected.upper()}." '):
        assert is_correct(check_of(expected), said, question) or not is_correct(check_of(expected, strict=True), said)


@settings(max_examples=500, deadline=None)
@given(st.from_regex(r"[$€£]? ?-?[0-9]{1,4}(\.[0-9]{1,3})? ?[A-Za-z%°$]{0,12}", fullmatch=True))
def test_any_unit_that_is_strictly_taken_is_taken(answer: str) -> None:
    number = float("".join(sign for sign in answer if sign in "-.0123456789"))
    assume(not any(answer.casefold().endswith(scale) for scale in MULTIPLES))
    assert is_correct(check_of(number), answer) or not is_correct(check_of(number, strict=True), answer)


def test_a_scale_is_no_unit() -> None:
    assert is_correct(check_of(1.2, strict=True), "1.2 million")
    assert not is_correct(check_of(1.2), "1.2 million")


# A second candidate makes it wrong


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from([(row, answer) for row in CORPUS if row["kind"] != "set" for answer in row["right"]]),
    st.sampled_from(["{} or {}", "{}, {}", "{}; {}", "{}. {}", "{}\n{}", "{} and {}", "{}/{}", "Either {} or {}"]),
    st.booleans(),
)
def test_a_second_candidate_makes_an_answer_wrong(chosen: tuple[dict[str, Any], str], form: str, first: bool) -> None:
    row, answer = chosen
    other = {"number": "77.25", "text": "Peter Carter"}[row["kind"]]
    check = AnswerCheck(kind=row["kind"], expected=row["expected"], tolerance=row.get("tolerance", 0.0), strict=False)
    words = set(answer.casefold().replace(",", " ").replace(".", " ").split())
    assume("=" not in answer and "n't" not in answer and not words & DENIES)  # they deny, or outweigh, the other
    answer = answer.rstrip(".!\n")
    both = form.format(*((other, answer) if first else (answer, other)))
    assert not is_correct(check, both, row["question"])


# Whatever comes


@settings(max_examples=1000, deadline=None)
@given(st.text(max_size=300), st.text(max_size=100), st.sampled_from([12.5, "Nora Lund", "yes", ["A", "B"], "C++"]))
def test_nothing_raises(answer: str, question: str, expected: Any) -> None:
    assert is_correct(check_of(expected), answer, question) in (True, False)


@pytest.mark.parametrize(
    "piece",
    [
        "1",
        "1,",
        "1 ",
        "a",
        "not ",
        "one ",
        "Nora ",
        ".",
        "(",
        "- ",
        "\n",
        "1/",
        "if ",
        "or ",
        "'",
        "🎲",
        "no, ",
        "a-",
        "\u00a01",
    ],
)
@pytest.mark.parametrize("expected", [12.5, "Nora Lund", ["Nora", "Lund"], "1 1 1 1 1", "a a a a a a a"])
def test_a_long_answer_takes_no_time(piece: str, expected: Any) -> None:
    answer = (piece * MAX_PROSE)[:MAX_PROSE]
    began = time.process_time()
    is_correct(check_of(expected), answer, answer)
    assert not is_correct(check_of(expected), answer * 10_000, "")
    assert time.process_time() - began < 0.5


# Numbers in words


@pytest.mark.parametrize(
    ("text", "value", "used"),
    [
        ("zero", 0, 1),
        ("twelve thirteen", 12, 1),
        ("twenty one", 21, 2),
        ("twenty thirty", 20, 1),
        ("one hundred and five dollars", 105, 4),
        ("one hundred and dollars", 100, 2),
        ("two thousand three hundred and forty five", 2345, 7),
        ("three million two hundred thousand", 3_200_000, 5),
        ("a dozen eggs", 12, 2),
        ("two dozen", 24, 2),
        ("a thousand", 1000, 2),
        ("twelve and a half", 12.5, 4),
        ("three and a quarter", 3.25, 4),
        ("six point five oh", 6.5, 3),
        ("six point", 6, 1),
        ("one two", 1, 1),
        ("five and six", 5, 1),
        ("two million three", 2_000_003, 3),
        ("two thousand million", 2000, 2),
    ],
)
def test_number_words_are_numbers(text: str, value: float, used: int) -> None:
    assert read_number_words(text.split()) == (value, used)


@pytest.mark.parametrize(
    "text", ["", "dollars", "and five", "hundred", "thousand", "half", "a", "a book", "point five"]
)
def test_other_words_are_none(text: str) -> None:
    assert read_number_words(text.split()) is None

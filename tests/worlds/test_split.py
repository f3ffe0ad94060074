"""Which tasks are the same question, and on which side of the split they go.

"What does Dune cost?"   "Hi, what does Dune cost, please?"    one question, one side
"What does Dune cost?"   "What does Emma cost?"                two questions, as most tasks are written
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steptool.core.errors import DataError
from steptool.worlds.base import Split
from steptool.worlds.project.split import cluster_names, clusters, deal, question_of
from steptool.worlds.project.tasks import TaskLine
from tests.project import ROOT

SHARES: dict[Split, float] = {"test": 0.3, "dev": 0.2}

SAME = [
    ("What does Dune cost?", "what does dune cost"),
    ("What does Dune cost?", "WHAT DOES DUNE COST???"),
    ("What does Dune cost?", "Dune, what does it cost?"),
    ("What does Dune cost?", "Hi! Could you please tell me what Dune costs? Thanks!"),
    ("What does Dune cost?", "How much does Dune cost?"),
    ("What's the price of Dune?", "Tell me the price of Dune."),
    ("What is Dune's price?", "what is the price of Dune"),
    ("Which hotels in Oslo have a pool?", "Find the hotels in Oslo that have a pool"),
    ("Can't I cancel order 17?", "I cannot cancel order 17?"),
    ("Is “Dune” in stock?", 'Is "Dune" in stock?'),
    ("Who wrote Dune and Emma?", "Who wrote Emma and Dune?"),
]
OTHER = [
    ("What does Dune cost?", "What does Emma cost?"),
    ("What does Dune cost?", "Who wrote Dune?"),
    ("What is the status of order 17?", "What is the status of order 18?"),
    ("A train from Oslo to Bergen", "A train from Bergen to Oslo"),
    ("Is Dune cheaper than Emma?", "Is Emma cheaper than Dune?"),
    ("How many hotels are in Oslo?", "Which hotels are in Oslo?"),
    ("Which hotels have a pool?", "Which hotels do not have a pool?"),
    ("Which hotels have a pool?", "Which hotels have a bar?"),
    ("Order 2 copies of Dune.", "Order 3 copies of Dune."),
    ("When was Dune written?", "Where was Dune written?"),
    ("The cheapest hotel in Oslo", "The dearest hotel in Oslo"),
    ("What is 12.5 + 1?", "What is 125 + 1?"),
    ("東京の天気は?", "大阪の天気は?"),
    ("???", "!!!"),
    ("What is it?", "Who is it?"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_question_in_other_words_is_one(one: str, other: str) -> None:
    assert question_of(one) == question_of(other)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_another_word_makes_another_question(one: str, other: str) -> None:
    assert question_of(one) != question_of(other)


def lines_of(*tasks: TaskLine) -> dict[str, TaskLine]:
    return {f"tasks.jsonl:{number}": task for number, task in enumerate(tasks, start=1)}


def task(query: str, id: str = "", split: Split | None = None, group: str = "all", cluster: str = "") -> TaskLine:
    return TaskLine(id=id or query, query=query, split=split, group=group, cluster=cluster)


def test_tasks_of_one_question_are_dealt_together() -> None:
    twice = [task(f"{greeting}What does book {n} cost?") for n in range(20) for greeting in ("", "Please: ")]
    dealt = deal(lines_of(*twice), SHARES, seed=3)
    assert {split: len(found) for split, found in dealt.items()} == {"train": 20, "dev": 8, "test": 12}
    sides = {split: {question_of(each.query) for each in found} for split, found in dealt.items()}
    assert not sides["train"] & sides["test"] and not sides["train"] & sides["dev"] and not sides["dev"] & sides["test"]


def test_a_task_goes_where_one_of_the_same_question_is_said_to_go() -> None:
    lines = lines_of(
        task("What does Dune cost?", split="test"),
        task("Please, what does Dune cost?", group="other"),
        *(task(f"Who wrote book {n}?") for n in range(10)),
    )
    dealt = deal(lines, SHARES, seed=1)
    assert "Please, what does Dune cost?" in [each.query for each in dealt["test"]]


def test_one_question_on_two_sides_is_an_error_that_names_both_lines() -> None:
    lines = lines_of(
        task("What does Dune cost?", split="train"),
        task("Who wrote Dune?", split="test"),
        task("what does dune cost, please?", split="train", id="x"),
        task("Tell me what Dune costs", split="test"),
    )
    with pytest.raises(DataError) as error:
        deal(lines, SHARES, seed=1)
    assert str(error.value) == (
        "tasks.jsonl:4: is for test and asks what tasks.jsonl:1 asks, which is for train: what is tested would be "
        "trained on\n  fix: give both the same split, or leave one of them out"
    )


def test_tasks_of_a_named_cluster_are_dealt_together_with_those_of_their_questions() -> None:
    lines = lines_of(
        task("What does Dune cost?", cluster="prices"),
        task("Who wrote Dune?"),
        task("How much is Emma?", cluster="prices"),
        task("Please, how much is Emma?", id="x"),
        task("Who wrote Dune, please?", id="y"),
    )
    assert [[place.rpartition(":")[2] for place in each] for each in clusters(lines)] == [["1", "3", "4"], ["2", "5"]]
    prices = dict.fromkeys(("What does Dune cost?", "How much is Emma?", "x"), "prices")
    assert cluster_names(lines) == prices | dict.fromkeys(("Who wrote Dune?", "y"), "question of Who wrote Dune?")
    sides = {each.id: split for split, found in deal(lines, SHARES, 1).items() for each in found}
    assert len({sides[name] for name in prices}) == len({sides["Who wrote Dune?"], sides["y"]}) == 1


def test_a_cluster_that_is_named_like_a_task_is_not_the_cluster_of_its_question() -> None:
    asked = [task("Who?", id="1"), task("Who, please?", id="2")]
    named = [task("Where?", id="3", cluster="1"), task("When?", id="4", cluster="1")]
    found = cluster_names(lines_of(*asked, *named))
    assert found["1"] == found["2"] != found["3"] == found["4"] == "1"


def test_a_cluster_on_two_sides_and_a_question_in_two_clusters_are_errors() -> None:
    sides = lines_of(task("Who?", split="train", cluster="a"), task("Where?", split="test", cluster="a"))
    with pytest.raises(DataError, match=r"tasks.jsonl:2: is for test and is of the same cluster as tasks.jsonl:1"):
        deal(sides, SHARES, seed=1)
    named = lines_of(task("Who is it?", cluster="a"), task("Please, who is it?", cluster="b"))
    with pytest.raises(
        DataError, match=r"tasks.jsonl:2: is of the cluster 'b' and asks what tasks.jsonl:1 asks"
    ) as error:
        deal(named, SHARES, seed=1)
    assert error.value.fix == "give both the same cluster, or leave one of them out"


def test_a_large_cluster_stays_whole() -> None:
    dealt = deal(lines_of(*(task("What does Dune cost?", id=str(n)) for n in range(10))), SHARES, seed=1)
    assert [len(dealt[split]) for split in ("train", "dev", "test")] == [10, 0, 0]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["", "please ", "hi "]), st.sampled_from("xy"))),
    st.integers(0, 5),
)
def test_every_task_is_on_one_side_and_its_question_on_no_other(found: list[tuple[str, str, str]], seed: int) -> None:
    lines = lines_of(
        *(task(f"{filler}cost {name}{name}", id=str(n), group=group) for n, (name, filler, group) in enumerate(found))
    )
    dealt = deal(lines, SHARES, seed)
    assert sorted(each.id for side in dealt.values() for each in side) == sorted(each.id for each in lines.values())
    side_of = [{question_of(each.query) for each in side} for side in dealt.values()]
    assert sum(map(len, side_of)) == len(set[str]().union(*side_of))


def test_the_tasks_of_a_new_project_are_different_questions() -> None:
    file = ROOT / "steptool" / "project" / "template" / "tasks.jsonl"
    lines = lines_of(*(TaskLine.model_validate_json(line) for line in Path(file).read_text().splitlines()))
    assert len(clusters(lines)) == len(lines) == 10
    assert {split: len(found) for split, found in deal(lines, SHARES, 17).items()} == {"train": 6, "dev": 2, "test": 2}


def test_many_tasks_take_no_time() -> None:
    lines = lines_of(*(task(f"What does hotel {n} in Oslo cost per night, please?") for n in range(20_000)))
    began = time.process_time()
    dealt = deal(lines, SHARES, seed=1)
    assert len(dealt["test"]) == 6_000
    assert time.process_time() - began < 5

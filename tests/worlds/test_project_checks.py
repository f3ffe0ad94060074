"""What an attempt comes to by the checks of its task.

checks                  calls                 answer     solved
state: Dune ordered     order Dune            "done"     1
state: Dune ordered     order Emma            "done"     0
state: Dune ordered     order Dune            none       0: it gave up
state, number 9.5       order Dune            "8"        0: all must hold
state, judge            order Dune            "done"     nobody can tell
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from steptool.core.errors import DataError, WorldError
from steptool.core.types import AnswerCheck, Outcome, Reference, ToolCall
from steptool.worlds.base import SPLITS
from steptool.worlds.functions import FunctionsWorld
from steptool.worlds.project.checks import StateCheck
from steptool.worlds.project.tasks import TaskLine
from tests.worlds.conftest import Make

SHOP = '''
"""A shop."""
class Shop:
    def __init__(self) -> None:
        self.titles: list[str] = []

    def order(self, title: str, count: int = 1) -> str:
        """Order a book."""
        self.titles += [title] * count
        return "ordered"

    def orders(self, sure: bool = True) -> list[dict[str, object]]:
        """What was ordered."""
        return [{"title": title, "price": 9.5, "paid": False} for title in self.titles]

    def status(self) -> str:
        """The status of the shop."""
        if not self.titles:
            raise LookupError("nothing was ordered")
        return "open"

def half(answer, calls, shop): return 0.5
def paid(answer, calls, shop): return False
'''
ORDERED = {"kind": "state", "tool": "orders", "path": "$[*].title", "expected": ["Dune"]}


def solved(make: Make, check: Any, *titles: str, answer: str | None = "done", query: str = "Well?") -> Outcome:
    tasks = [{"id": "it", "query": query, "split": "train", "check": check}, {"query": "Else?", "split": "test"}]
    world = make(SHOP, tasks, module="tools.py:Shop")

    async def run() -> Outcome:
        session = world.open(world.tasks("train")[0], seed=0)
        for title in titles:
            await session.call(ToolCall(name="order", arguments={"title": title}))
        return await session.close(answer)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("check", "titles", "answer", "expected"),
    [
        (ORDERED, ["Dune"], "done", 1),
        (ORDERED, ["Emma"], "done", 0),
        (ORDERED, ["Dune", "Dune"], "done", 0),
        (ORDERED, ["Dune"], None, 0),
        (ORDERED, ["Dune"], "", 1),
        ([ORDERED, {"kind": "number", "expected": 9.5}], ["Dune"], "It costs 9.50.", 1),
        ([ORDERED, {"kind": "number", "expected": 9.5}], ["Dune"], "8", 0),
        ([ORDERED, {"kind": "number", "expected": 9.5}], ["Emma"], "9.5", 0),
        ([ORDERED, {"kind": "judge"}], ["Dune"], "done", None),
        ([ORDERED, {"kind": "judge"}], ["Emma"], "done", 0),
        ([{"kind": "judge"}, ORDERED], ["Emma"], "done", 0),
        ([ORDERED, "half"], ["Dune"], "done", 0.5),
        (["half", "paid"], ["Dune"], "done", 0),
        ({"kind": "judge"}, ["Dune"], None, None),
        (None, ["Dune"], "done", None),
        ({"kind": "state", "tool": "status", "expected": "Open"}, ["Dune"], "done", 1),
        ({"kind": "state", "tool": "status", "expected": "open"}, [], "done", 0),
    ],
)
def test_all_checks_of_a_task_must_hold(
    make: Make, check: Any, titles: list[str], answer: str | None, expected: float | None
) -> None:
    assert solved(make, check, *titles, answer=answer).solved == expected


def test_the_evidence_says_what_was_found(make: Make) -> None:
    expected = '$[*].title of orders: expected ["Dune"], is "Emma"'
    assert solved(make, ORDERED, "Emma").evidence == expected
    assert solved(make, {"kind": "state", "tool": "status", "expected": "open"}).evidence == (
        "status replied with the error tool_error"
    )
    both = [{"kind": "text", "expected": "Dune"}, ORDERED]
    assert solved(make, both, "Dune", answer="Dune").evidence.startswith("expected Dune, answered Dune; $[*].title")


def test_a_tool_that_is_not_there_at_the_end_is_the_worlds_fault(make: Make) -> None:
    world = make(SHOP, [{"query": "Well?", "split": "train", "check": ORDERED}, {"query": "Else?", "split": "test"}],
                 module="tools.py:Shop", record="only")  # fmt: skip

    async def run() -> Outcome:
        return await world.open(world.tasks("train")[0], seed=0).close("done")

    with pytest.raises(WorldError, match="orders, which tells how the attempt ended, replied with the error no_record"):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("check", "what"),
    [
        ({**ORDERED, "tool": "ordres"}, "tasks.jsonl:1: check: no tool is called 'ordres'"),
        ({**ORDERED, "arguments": {"sure": "x"}}, "tasks.jsonl:1: check: these are no arguments of orders"),
        ({**ORDERED, "arguments": {"shure": True}}, "tasks.jsonl:1: check: these are no arguments of orders"),
        ({**ORDERED, "path": "title"}, "'title' is no JSONPath, such as"),
        ({**ORDERED, "path": "$["}, "is no JSONPath"),
        ({**ORDERED, "path": ""}, "at least 1 character"),
        ({"kind": "state", "tool": "orders"}, "expected: Field required"),
        ({**ORDERED, "strict": True}, "strict: Extra inputs"),
        ({**ORDERED, "expected": " "}, "which is not a text"),
        ({**ORDERED, "tolerance": -1}, "greater than or equal to 0"),
        ([], "an empty list"),
        ("", "at least 1 character"),
        ([ORDERED, "nowhere"], "has no function 'nowhere'"),
        ({"kind": "sate", "expected": 1}, "kind"),
        (7, "check"),
    ],
)
def test_a_check_that_cannot_be_made_is_named_when_the_tasks_are_read(make: Make, check: Any, what: str) -> None:
    with pytest.raises(DataError, match=what.replace("[", r"\[")) as error:
        solved(make, check)
    assert "tasks.jsonl:1" in str(error.value)
    assert error.value.fix


@pytest.mark.parametrize(
    ("path", "expected", "reply", "holds"),
    [
        ("$", "open", "open", True),
        ("$", "open", '"Open."', True),
        ("$", "open", "not open", False),
        ("$.n", 3, '{"n": 3}', True),
        ("$.n", 3, '{"n": 3.0}', True),
        ("$.n", 3, '{"n": "3"}', True),
        ("$.n", 3, '{"n": "$3.00"}', True),
        ("$.n", 3, '{"n": 3.2}', False),
        ("$.n", 1, '{"n": true}', False),
        ("$.n", True, '{"n": true}', True),
        ("$.n", True, '{"n": 1}', False),
        ("$.n", None, '{"n": null}', True),
        ("$.n", None, "{}", False),
        ("$.n", {"a": [1]}, '{"n": {"a": [1]}}', True),
        ("$.n", {"a": [1]}, '{"n": {"a": [1], "b": 2}}', False),
        ("$[*]", 3, "[3, 3]", False),
        ("$[*].t", ["a", "b"], '[{"t": "b"}, {"t": "A"}]', True),
        ("$[*].t", ["a", "b"], '[{"t": "b"}]', False),
        ("$[*].t", ["a", "b"], '[{"t": "b"}, {"t": "a"}, {"t": "a"}]', False),
        ("$[*].t", ["a"], '[{"t": "a"}]', True),
        ("$.t", ["a", "b"], '{"t": ["b", "a"]}', True),
        ("$.t", ["a", "a"], '{"t": ["a", "b"]}', False),
        ("$[?@.t == 'a'].n", [2], '[{"t": "a", "n": 2}, {"t": "b", "n": 3}]', True),
        ("$[?@.t == 'a']", [], '[{"t": "b"}]', True),
        ("$[?@.t == 'a']", [], '[{"t": "a"}]', False),
        ("$.n", [], "not JSON", True),
        ("$.n", 3, "not JSON", False),
        ("$..n", [1, 2], '{"n": 1, "m": [{"n": 2}]}', True),
    ],
)
def test_values_at_a_path_are_matched(path: str, expected: Any, reply: str, holds: bool) -> None:
    check = StateCheck(kind="state", tool="t", path=path, expected=expected)
    assert check.holds(check.found_in(reply)) is holds


def test_a_number_is_matched_within_its_tolerance() -> None:
    check = StateCheck(kind="state", tool="t", expected=[9.5, 3], tolerance=0.1)
    assert check.holds(check.found_in("[3, 9.45]"))
    assert not check.holds(check.found_in("[3, 9.3]"))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_reply_is_judged(reply: str) -> None:
    for path in ("$", "$..*", "$[0]", "$[?@.a == 1]"):
        check = StateCheck(kind="state", tool="t", path=path, expected=["a"])
        assert check.holds(check.found_in(reply)) in (True, False)


# What a line says


def test_prose_is_accepted_in_a_file_of_tasks_unless_it_asks_for_more() -> None:
    def checks(check: Any) -> tuple[Any, ...]:
        return TaskLine.model_validate({"query": "?", "check": check}).checks

    (lenient,) = checks({"kind": "number", "expected": 9.5})
    (strict,) = checks({"kind": "number", "expected": 9.5, "strict": True})
    assert (lenient.strict, strict.strict) == (False, True)
    assert checks({"kind": "judge"}) == (AnswerCheck(kind="judge"),)
    assert checks(None) == ()
    assert checks("f") == ("f",)
    assert [type(check) for check in checks(["f", ORDERED])] == [str, StateCheck]


def test_records_of_strict_checks_are_what_they_were() -> None:
    strict = Reference(task_id="a", answer_check=AnswerCheck(kind="number", expected=3, tolerance=0.5))
    assert strict.model_dump(mode="json")["answer_check"] == {"kind": "number", "expected": 3, "tolerance": 0.5}
    lenient = Reference(task_id="a", answer_check=AnswerCheck(kind="number", expected=3, strict=False))
    assert lenient.model_dump(mode="json")["answer_check"]["strict"] is False
    for reference in (strict, lenient):
        assert Reference.model_validate_json(reference.model_dump_json()) == reference


def test_what_is_known_of_a_task_is_what_checks_it(make: Make) -> None:
    def reference(check: Any) -> Reference:
        lines = [{"query": "Well?", "split": "train", "check": check}, {"query": "Else?", "split": "test"}]
        world: FunctionsWorld = make(SHOP, lines, module="tools.py:Shop")
        return world.reference(world.tasks("train")[0])

    number = {"kind": "number", "expected": 9.5}
    assert reference(number).answer_check == AnswerCheck(kind="number", expected=9.5, strict=False)
    for check, known in ((ORDERED, True), ([ORDERED, number], True), ([number, {"kind": "judge"}], False)):
        found = reference(check)
        assert (found.answer_check, found.has_own_check, found.can_be_checked) == (None, known, known)
    assert not reference(None).can_be_checked


def test_tasks_of_one_question_or_name_are_one_cluster(make: Make) -> None:
    lines = [
        {"id": "a", "query": "Well?", "split": "train", "cluster": "first"},
        {"id": "b", "query": "Please, well?", "split": "train"},
        {"id": "c", "query": "Else?", "split": "test"},
    ]
    world: FunctionsWorld = make(SHOP, lines, module="tools.py:Shop")
    clusters = {task.id: world.reference(task).cluster for split in SPLITS for task in world.tasks(split)}
    assert clusters == {"a": "first", "b": "first", "c": ""}


def test_the_question_is_known_to_the_check(make: Make) -> None:
    """ "4" is asked about, so it is not the answer."""
    check = {"kind": "number", "expected": 3}
    query = "How many hotels have 4 stars?"
    assert solved(make, check, answer="There are 3 hotels with 4 stars.", query=query).solved == 1
    assert solved(make, check, answer="There are 3 hotels with 5 stars.", query=query).solved == 0


def test_a_path_needs_a_query() -> None:
    with pytest.raises(ValidationError, match="no JSONPath"):
        StateCheck(kind="state", tool="t", path="^.a", expected=1)

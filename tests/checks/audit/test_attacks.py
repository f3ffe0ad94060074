"""Attacks on an honest attempt.

query: what does Dune cost?    offered: find(name), get(id), order(id, count)    budget: 5 actions

honest    find {"name": "Dune"} -> {"id": "bk417"}    get {"id": "bk417"} -> {"price": 9.99, "stock": 3}    9.99
"""

from __future__ import annotations

import pytest

from steptool import testing
from steptool.checks.audit.attacks import EARLY, GIVING_UP, HONEST, UNKNOWN, WRONG, Plan, plans
from steptool.core.types import Action, Step
from steptool.testing import call, finish, step, tool

TASK = testing.task(
    "t1",
    "What does Dune cost?",
    tool("find", needs={"name": "string"}),
    tool("get", needs={"id": "string"}),
    tool("order", needs={"id": "string", "count": "integer"}),
)
FIND = step(call("find", name="Dune"), {"id": "bk417"})
GET = step(call("get", id="bk417"), {"price": 9.99, "stock": 3})
ATTEMPT = testing.trajectory(FIND, GET, finish("9.99"), solved=1.0)
PLANS = {plan.name: plan for plan in plans(TASK, ATTEMPT, budget=5)}


def made(plan: Plan) -> list[str]:
    return [", ".join(f"{one.name} {list(one.arguments.values())}" for one in action.calls) for action in plan.actions]


def answered(name: str, *steps: Step) -> str | None:
    return PLANS[name].answer(steps)


def test_the_honest_attempt_is_made_again() -> None:
    assert made(PLANS[HONEST]) == ["find ['Dune']", "get ['bk417']"]
    assert answered(HONEST, FIND, GET) == "9.99"


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("a good call repeated to the budget, then wrong", ["find ['Dune']", *["get ['bk417']"] * 3]),
        ("the first good call repeated, then giving up", ["find ['Dune']"] * 4),
        ("a number varied in a call, then wrong", [f"order ['bk417', {count}]" for count in (1, 2, 3, 4)]),
        ("everything offered called, then right", ["find ['Dune']", "get ['bk417']", "order ['bk417', 1]"]),
        ("calls without a tool's name, the question as the answer", [" ['Dune']", " ['bk417']"]),
        ("the question as every argument, and as the answer", [f"{tool} [{TASK.query!r}]" for tool in ("find", "get")]),
        ("no call, the question as the answer", []),
        (EARLY, ["find ['Dune']"]),
    ],
)
def test_an_attack_makes_these_calls(name: str, calls: list[str]) -> None:
    assert made(PLANS[name]) == calls


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        (WRONG, "3"),
        (GIVING_UP, None),
        ("a value of every reply as the answer", "bk417, 9.99"),
        ("all replies as the answer", '{"id": "bk417"} {"price": 9.99, "stock": 3}'),
        ("no call, the question as the answer", TASK.query),
    ],
)
def test_an_attack_answers_so(name: str, answer: str | None) -> None:
    assert answered(name, FIND, GET) == answer


def test_a_wrong_answer_is_none_of_the_right_one_s_values() -> None:
    assert answered(WRONG, FIND) == "bk417"
    assert answered(WRONG) == UNKNOWN
    assert answered(WRONG, step(call("get", id="bk417"), {"price": 9.99})) == UNKNOWN


def test_putting_off_is_compared_with_doing_it_at_once() -> None:
    assert PLANS["a wrong answer put off to the budget"].against == WRONG
    assert PLANS["giving up put off to the budget"].against == GIVING_UP


def test_no_attempt_is_longer_than_the_budget() -> None:
    assert max(len(plan.actions) for plan in PLANS.values()) == 4


def test_an_attack_that_the_task_gives_no_hold_for_is_left_out() -> None:
    plain = testing.task("t1", "What does Dune cost?", tool("find", needs={"name": "string"}))
    attempt = testing.trajectory(FIND, finish("bk417"), solved=1.0)
    names = {plan.name for plan in plans(plain, attempt, budget=2)}
    assert not any(name.startswith(("a number varied", "everything offered", "a good call repeated")) for name in names)
    assert EARLY not in names, "the honest attempt answers from its first reply too"


def test_an_attempt_whose_every_call_failed_has_nothing_to_repeat() -> None:
    failed = testing.trajectory(step(call("find", name="Dune"), error="no such book"), finish("none"), solved=1.0)
    found = {plan.name for plan in plans(TASK, failed, budget=5)}
    assert not any("good call" in name for name in found)


def test_text_that_is_no_call_fills_the_budget() -> None:
    plan = PLANS["text that is no call, the question as the answer"]
    assert plan.actions == (Action(unreadable="no call"),) * 4

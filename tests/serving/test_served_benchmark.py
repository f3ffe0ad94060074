"""Where a client's attempt parts from the one that `evaluate` made, drawn by hand.

evaluate   find {"id": "a"}    find {"id": "b"}   Finish "7"
served     find {"id": "a"}    find {"id": "c"}   → action 2: token and its two log-probabilities
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.served import CUT, UNREADABLE, Result, part, report
from steptool.core.types import Action, Trajectory
from steptool.formats.json_call import JsonCall
from steptool.formats.names import OPENAI, TEXT
from steptool.policies import tiny_model
from steptool.testing import call, step, task, tool, trajectory, unreadable

FORMAT = JsonCall(JsonCall.Config(), tiny_model.tokenizer())
TASK = task("t", "Where?").model_copy(update={"tools": (tool("shop.find", "Finds.", needs={"id": "string"}),)})


def attempt(*actions: Action) -> Trajectory:
    """As it was sampled: contexts of one token between the actions."""
    steps = [
        step(
            action,
            "{}" if number < len(actions) else None,
            context_ids=(1,),
            action_ids=FORMAT.render(action, TASK) if action.unreadable is None else (5,),
        )
        for number, action in enumerate(actions, start=1)
    ]
    return trajectory(*steps)


def said(text: str = "", **calls: Any) -> dict[str, Any]:
    made = [{"function": {"name": name, "arguments": json.dumps(value)}} for name, value in calls.items()]
    return {"role": "assistant", "content": text, "tool_calls": made}


def find(id: str, name: str = "shop.find") -> dict[str, Any]:
    return said(**{name: {"id": id}})


LOOK, ANSWER = Action(calls=(call("shop.find", id="a"),)), Action(calls=(call("Finish", answer="7"),))


def parted(own: Trajectory, *messages: Any, spelling: Any = TEXT, asked: list[Any] | None = None) -> Any:
    def logprob(ids: list[int]) -> float:
        (asked if asked is not None else []).append(list(ids))
        return -float(len(asked or []))

    user = {"role": "user", "content": TASK.query}
    return part(TASK, own, [user, *messages], FORMAT, spelling, logprob)


def test_equal_attempts_do_not_part() -> None:
    own = attempt(LOOK, ANSWER)
    assert parted(own, find("a"), said("7")) is None
    assert parted(own, find("a", "shop_find"), said("7"), spelling=OPENAI) is None


def test_the_first_action_and_token_that_differ_are_named_with_the_gap_between_the_two() -> None:
    asked: list[Any] = []
    found = parted(attempt(LOOK, ANSWER), find("b"), said("7"), asked=asked)
    assert (found.number, found.evaluated, found.served) == (1, 'shop.find {"id": "a"}', 'shop.find {"id": "b"}')
    theirs, own = asked
    assert theirs[:-1] == own[:-1] and theirs[-1] != own[-1] and theirs[0] == 1
    assert found.gap == -1 - -2
    last = parted(attempt(LOOK, ANSWER), find("a"), said("8"))
    assert (last.number, last.evaluated, last.served) == (2, "answer: 7", "answer: 8")


def test_what_is_no_rounding_is_named_for_what_it_is() -> None:
    odd = parted(attempt(LOOK, unreadable(thought="mumble")), find("a"), said("mumble"))
    assert (odd.number, odd.why, odd.gap) == (2, UNREADABLE, None)
    assert parted(attempt(LOOK), find("a"), find("b")).why == CUT
    assert parted(attempt(LOOK, LOOK), find("a")).why == CUT


def test_the_report_says_both_shares_and_each_task_that_differs() -> None:
    difference = parted(attempt(LOOK), find("b"))
    text = report(Result([1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [difference]), "bfloat16")
    first, second = text.splitlines()[:2]
    assert first.startswith("bfloat16, 3 test tasks: evaluate solves 2, served 3; 1 verdicts differ; an action differs")
    assert second.startswith("  t, action 1: token ") and "nats" in second

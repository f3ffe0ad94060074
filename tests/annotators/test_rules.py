"""What a call earns.

step  call                    reply               used by        success  contribution
0     find(name=Dune)         {"id": "bk417"}     step 1         1        1
1     get(id=bk417)           {"price": 12.5}     the answer     1        1
2     Finish(answer="$12.50")                                    solved
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steptool.annotators.rules import Rules, _argument_problem
from steptool.core.errors import DataError
from steptool.core.types import Action, StopReason, Task, Tool, ToolCall, Trajectory
from steptool.testing import call, finish, message, reference, step, unreadable
from steptool.testing import trajectory as attempt
from tests.rewards.conftest import annotated

Make = Callable[..., Any]
RELEVANT = ("find", "get")
QUERY = "What does Dune cost?"
FIND = ("find", {"name": "Dune"}, {"id": "bk417"})
GET = ("get", {"id": "bk417"}, {"price": 12.5})


def scores(
    trajectory: Trajectory, task: Task, solved: float | None = 1.0, relevant: tuple[str, ...] = ()
) -> list[tuple[float | None, float | None]]:
    judged = annotated(trajectory, task, solved, relevant).judgements
    assert all(judgement.reason for judgement in judged)
    return [(judgement.success, judgement.contribution) for judgement in judged[:-1]]


def test_a_chain_that_ends_in_the_answer_contributes_in_full(task: Make, trajectory: Make) -> None:
    scored = annotated(trajectory(FIND, GET, answer="$12.50"), task(QUERY), 1.0)
    assert [(j.success, j.contribution, j.solved) for j in scored.judgements] == [
        (1, 1, None),
        (1, 1, None),
        (None, None, 1),
    ]
    assert [j.reason for j in scored.judgements] == ["used by step 1", "used in the answer", "right answer"]


def test_an_unused_call_contributes_nothing(task: Make, trajectory: Make) -> None:
    unused = ("list", {}, {"names": ["Emma", "Ulysses"]})
    assert scores(trajectory(unused, FIND, GET, answer="12.5"), task(QUERY)) == [(1, 0), (1, 1), (1, 1)]


def test_a_source_of_a_dead_end_contributes_nothing(task: Make, trajectory: Make) -> None:
    """find -> get, but the answer holds nothing that get said."""
    assert scores(trajectory(FIND, GET, answer="99"), task(QUERY), 0.0) == [(1, 0), (1, 0)]


def test_a_wrong_answer_still_shows_what_was_used(task: Make, trajectory: Make) -> None:
    assert scores(trajectory(FIND, GET, answer="12.5"), task(QUERY), 0.0) == [(1, 1), (1, 1)]


@pytest.mark.parametrize("stop", [StopReason.gave_up, StopReason.call_budget, StopReason.world_error])
def test_without_an_answer_nothing_contributes_and_nothing_is_solved(
    task: Make, trajectory: Make, stop: StopReason
) -> None:
    scored = annotated(trajectory(FIND, GET, ("list", {}, "x"), stop=stop), task(QUERY), 1.0)
    assert [j.contribution for j in scored.judgements[:-1]] == [0] * (len(scored.judgements) - 1)
    assert scored.solved == 0


def test_an_error_and_the_recovery_after_it(task: Make, trajectory: Make) -> None:
    failed = ("find", {"name": "Dune"}, "!rate_limit")
    assert scores(trajectory(failed, FIND, GET, answer="12.5"), task(QUERY)) == [(0, 0), (1, 1), (1, 1)]


def test_a_call_that_fails_uses_nothing(task: Make, trajectory: Make) -> None:
    """find -> get fails; the price comes from list instead."""
    calls = (FIND, ("get", {"id": "bk417"}, "!unavailable"), ("list", {}, {"Dune": 12.5}))
    assert scores(trajectory(*calls, answer="12.5"), task(QUERY)) == [(1, 0), (0, 0), (1, 1)]


def test_credit_passes_through_an_error_that_says_how_to_go_on(task: Make, trajectory: Make) -> None:
    """find -> get fails with "id moved, use bk9" -> get(bk9): the failed call earns nothing, find does."""
    moved = ("get", {"id": "bk417"}, "!id moved, use bk9")
    calls = (FIND, moved, ("get", {"id": "bk9"}, {"price": 12.5}))
    assert scores(trajectory(*calls, answer="12.5"), task(QUERY)) == [(1, 1), (0, 0), (1, 1)]


def test_credit_goes_to_the_first_step_that_showed_the_value(task: Make, trajectory: Make) -> None:
    again = ("list", {}, {"known": "bk417"})
    assert scores(trajectory(FIND, again, GET, answer="12.5"), task(QUERY)) == [(1, 1), (1, 0), (1, 1)]


def test_a_number_inside_an_earlier_date_is_still_new(task: Make, trajectory: Make) -> None:
    """find -> get says 16 June; list says 16, which is the answer."""
    calls = (FIND, ("get", {"id": "bk417"}, {"date": "16 June"}), ("list", {}, {"wind": 16}))
    assert scores(trajectory(*calls, answer="16"), task(QUERY)) == [(1, 0), (1, 0), (1, 1)]


def test_both_sides_of_a_comparison_count_as_consulted(task: Make, trajectory: Make) -> None:
    """The answer is a word of the question; the two prices decide it but are never said again."""
    calls = (
        ("find", {"name": "Dune"}, {"id": "bk417"}),
        ("get", {"id": "bk417"}, {"price": 12}),
        ("find", {"name": "Emma"}, {"id": "bk902"}),
        ("get", {"id": "bk902"}, {"price": 9}),
    )
    compare = task("Which is cheaper, Dune or Emma?")
    assert scores(trajectory(*calls, answer="Emma"), compare, 1.0, RELEVANT) == [(1, 0.5)] * 4
    assert scores(trajectory(*calls[:2], answer="Dune"), compare, 0.0, RELEVANT) == [(1, 0.5)] * 2


def test_walking_through_a_list_is_consulted_once(task: Make, trajectory: Make) -> None:
    """One name of the query vouches for one call of each tool."""
    calls = (
        ("find", {"name": "Dune"}, {"ids": ["b1", "b2", "b3"]}),
        ("get", {"id": "b1"}, {"price": 12}),
        ("get", {"id": "b2"}, {"price": 13}),
        ("get", {"id": "b3"}, {"price": 14}),
    )
    answered = trajectory(*calls, answer="yes")
    assert scores(answered, task("Is Dune cheap?"), 0.0, RELEVANT) == [(1, 0.5), (1, 0.5), (1, 0), (1, 0)]


def test_an_irrelevant_tool_is_not_consulted(task: Make, trajectory: Make) -> None:
    assert scores(trajectory(FIND, answer="Dune"), task("Dune or Emma?"), 0.0, ("get",)) == [(1, 0)]


def test_the_weight_of_a_consulted_call_is_a_setting(task: Make, trajectory: Make) -> None:
    rules = Rules(Rules.Config(consulted=0.25))
    judged = annotated(trajectory(FIND, answer="Dune"), task("Dune or Emma?"), 0.0, RELEVANT, rules=rules)
    assert judged.judgements[0].contribution == 0.25


def test_an_answer_that_the_world_cannot_check_has_no_verdict(task: Make, trajectory: Make) -> None:
    verdict = annotated(trajectory(FIND, answer="bk417"), task(QUERY), None).judgements[-1]
    assert (verdict.solved, verdict.reason) == (None, "no exact check for this answer")


@pytest.mark.parametrize(("answer", "solved"), [(None, None), ("bk417", 0.0)])
def test_without_an_outcome_an_attempt_without_an_answer_is_unsolved_only_where_the_task_has_a_check(
    task: Make, trajectory: Make, answer: str | None, solved: float | None
) -> None:
    """A session that broke gives no outcome, and neither does one of a task that nothing checks."""
    asked = task(QUERY)
    broken = trajectory(FIND, stop=StopReason.world_error)
    judged = asyncio.run(Rules(Rules.Config()).annotate(broken, asked, reference(asked, answer)))
    assert (judged[-1].solved, judged[-1].reason) == (solved, "no answer: world_error")


def test_of_several_calls_the_share_that_succeeds_and_the_best_contribution_count(task: Make) -> None:
    """step  calls                      replies                     used by     success  contribution
    0     find(Dune), get(none)      bk417, error                step 1      1/2      1
    1     get(bk417), list(), bad    12.5, names, (no such tool)  the answer  2/3      1
    """
    both = step([call("find", name="Dune"), call("get", id="none")], ["{}", "{}"])
    both = both.model_copy(update={"observations": (step(call("x"), {"id": "bk417"}).observations[0],
                                                    step(call("x"), error="unknown_id").observations[0])})  # fmt: skip
    three = step(
        [call("get", id="bk417"), call("list"), call("bad")], [{"price": 12.5}, {"names": ["Emma"]}, {"x": "y"}]
    )
    judged = annotated(attempt(both, three, finish("12.5")), task(QUERY), 1.0).judgements
    assert [(j.success, j.contribution) for j in judged[:-1]] == [(0.5, 1), (pytest.approx(2 / 3), 1)]
    assert judged[0].reason == "used by step 1; error: unknown_id"


def test_a_failed_call_earns_nothing_by_the_good_one_beside_it(task: Make) -> None:
    """The answer holds what the failed call said, and nothing of what list said."""
    failed = step(call("x"), error="see zz1 there").observations[0]
    both = step([call("get", id="none"), call("list")], ["{}", {"names": ["Emma"]}])
    both = both.model_copy(update={"observations": (failed, both.observations[1])})
    assert scores(attempt(both, finish("see zz1 there")), task(QUERY)) == [(0.5, 0)]


def test_calls_made_at_the_same_time_do_not_use_one_another(task: Make) -> None:
    """get(bk417) is made beside the find that shows bk417, so it has it from elsewhere."""
    both = step([call("find", name="Dune"), call("get", id="bk417")], [{"id": "bk417"}, {"title": "zz2"}])
    judged = annotated(attempt(both, finish("zz2")), task(QUERY), 1.0).judgements
    assert judged[0].reason == "its reply was not used; used in the answer"


@pytest.mark.parametrize(
    ("action", "success", "contribution"),
    [(message("Which edition?"), 1, 1), (unreadable("no call"), 0, 0), (call("list"), 1, 1)],
)
def test_what_the_user_replies_is_credited_like_the_reply_of_a_tool(
    task: Make, action: Action | ToolCall, success: float, contribution: float
) -> None:
    """A message, a call, and what could not be read; each is answered with zz7, which get takes."""
    asked, got = step(action, "zz7"), step(call("get", id="zz7"), {"price": 12.5})
    assert scores(attempt(asked, got, finish("12.5")), task(QUERY))[0] == (success, contribution)


def test_an_answer_may_be_a_message(task: Make) -> None:
    got = step(call("list"), {"price": 12.5})
    judged = annotated(attempt(got, step(message("It costs $12.50."))), task(QUERY), 1.0).judgements
    assert [(j.contribution, j.solved) for j in judged] == [(1, None), (None, 1)]


ATTACKS: dict[str, tuple[tuple[Any, ...], str, float]] = {
    # name: (the attacking call as the middle step of find ... get, answer, success it may have)
    "an empty tool name": (("", {"name": "Dune"}, {"id": "zz1"}), "zz1", 0),
    "the suffix of a tool name": (("ind", {"name": "Dune"}, {"id": "zz1"}), "zz1", 0),
    "a tool name with a prefix": (("x_find", {"name": "Dune"}, {"id": "zz1"}), "zz1", 0),
    "another case": (("Find", {"name": "Dune"}, {"id": "zz1"}), "zz1", 0),
    "no call at all": ((None, {}, {"id": "zz1"}), "zz1", 0),
    "a missing argument": (("find", {}, {"id": "zz1"}), "zz1", 0),
    "an argument of the wrong type": (("find", {"name": 7}, {"id": "zz1"}), "zz1", 0),
    "an error in the kind": (("find", {"name": "Dune"}, "!unknown_id"), "unknown_id", 0),
    "an error in the text": (("find", {"name": "Dune"}, {"error": "no zz1", "response": ""}), "zz1", 0),
    "an empty reply": (("find", {"name": "Dune"}, ""), "Dune", 0),
    "a reply of empty parts": (("find", {"name": "Dune"}, {"error": "", "response": []}), "Dune", 0),
    "an echo of the arguments": (("note", {"text": "zz1 zz2"}, {"text": "zz1 zz2"}), "zz1 zz2", 1),
    "an echo of the question": (("list", {}, {"name": "Dune"}), "Dune", 1),
    "a substring of the answer": (("list", {}, {"id": "ar"}), "start", 1),
    "long but unrelated": (
        ("list", {}, "the answer to all of it is what you seek and more" * 9),
        "12.5 of it is what",
        1,
    ),
    "a whole reply as the answer": (("list", {}, {"ids": ["zz1", "zz2", "zz3"]}), "zz1 zz2 zz3", 1),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_earns_no_contribution(task: Make, trajectory: Make, name: str) -> None:
    call, answer, success = ATTACKS[name]
    assert scores(trajectory(call, answer=answer), task(QUERY), 0.0) == [(success, 0)]


def test_a_repeated_call_succeeds_and_contributes_nothing(task: Make, trajectory: Make) -> None:
    scored = annotated(trajectory(FIND, FIND, FIND, GET, answer="12.5"), task(QUERY), 1.0)
    assert [j.contribution for j in scored.judgements[:-1]] == [1, 0, 0, 1]
    assert [j.success for j in scored.judgements[:-1]] == [1, 1, 1, 1]
    assert scored.judgements[1].reason == "repeats step 0"


def test_an_undeclared_argument_uses_nothing(task: Make, trajectory: Make) -> None:
    """get would ignore `memo`, so carrying a value in it is no use of the value."""
    calls = (("list", {}, {"code": "zz1"}), ("find", {"name": "Dune", "memo": "zz1"}, {"id": "bk417"}))
    assert scores(trajectory(*calls, answer="bk417"), task(QUERY)) == [(1, 0), (1, 1)]


def test_a_copied_reply_as_an_argument_uses_nothing(task: Make, trajectory: Make) -> None:
    listing = ("list", {}, {"ids": ["zz1", "zz2", "zz3"]})
    note = ("note", {"text": "zz1 zz2 zz3"}, {"code": "ok55"})
    assert scores(trajectory(listing, note, answer="ok55"), task(QUERY)) == [(1, 0), (1, 1)]


def test_a_correct_answer_may_hold_a_whole_reply(task: Make, trajectory: Make) -> None:
    listing = ("list", {}, {"ids": ["zz1", "zz2", "zz3"]})
    assert scores(trajectory(listing, answer='["zz1", "zz2", "zz3"]'), task(QUERY), 1.0) == [(1, 1)]


def test_a_tool_offered_twice_under_one_name_cannot_be_called(task: Make, trajectory: Make) -> None:
    offered = task(QUERY)
    twice = offered.model_copy(update={"tools": (*offered.tools, offered.tools[0])})
    assert scores(trajectory(FIND, answer="bk417"), twice) == [(0, 0)]


def test_a_trajectory_of_another_task_is_refused(task: Make, trajectory: Make) -> None:
    with pytest.raises(DataError, match="belongs to task t1, not to t2"):
        annotated(trajectory(FIND, answer="x"), task(QUERY).model_copy(update={"id": "t2"}), 1.0)


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "http://localhost:9/schema.json"}])
def test_a_broken_tool_schema_is_named_and_never_fetched(task: Make, trajectory: Make, schema: dict[str, Any]) -> None:
    broken = task(QUERY).model_copy(update={"tools": (Tool(name="find", description="", parameters=schema),)})
    with pytest.raises(DataError, match="tool find"):
        annotated(trajectory(FIND, answer="x"), broken, 1.0)


def test_no_steps_give_no_judgements(task: Make, trajectory: Make) -> None:
    assert annotated(trajectory(stop=StopReason.engine_error), task(QUERY), None).judgements == ()


NAMES = st.sampled_from(["find", "get", "list", "note", "", "nd", None])
ARGUMENTS = st.dictionaries(
    st.sampled_from(["name", "id", "text", "limit"]), st.sampled_from(["Dune", "b1", "b2", 3, None])
)
REPLIES = st.sampled_from(["", "b1", {"id": "b1"}, {"id": "b2", "n": 3}, "!no", {"error": "", "response": "b1 b2"}])


@given(st.lists(st.tuples(NAMES, ARGUMENTS, REPLIES), max_size=6), st.sampled_from(["b1", "b2", "3", "Dune", "x"]))
def test_only_successful_calls_contribute_and_only_once(
    task: Make, trajectory: Make, calls: list[tuple[Any, ...]], answer: str
) -> None:
    scored = annotated(trajectory(*calls, answer=answer), task(QUERY), 0.0, RELEVANT)
    earlier: list[Any] = []
    for made, judgement in zip(scored.trajectory.steps[:-1], scored.judgements[:-1], strict=True):
        assert judgement.contribution <= judgement.success
        shown = (made.action.calls, made.observations)  # the same call may show something new where state changes
        if judgement.contribution:
            assert shown not in earlier
        if judgement.success:
            earlier.append(shown)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#/allOf/0"}]},
        {"if": {"$ref": "#"}},
        {"dependentSchemas": {"id": {"$ref": "#"}}},
        {"$id": "http://[", "$ref": "x"},
        {"$ref": "http://["},
        {"$dynamicRef": "#x"},
        {"patternProperties": {"(": {}}},
    ],
)
def test_a_schema_that_nothing_can_be_held_against_is_named(schema: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="tool t: its parameters are not a JSON schema"):
        _argument_problem(ToolCall(name="t", arguments={"id": "a"}), json.dumps(schema))

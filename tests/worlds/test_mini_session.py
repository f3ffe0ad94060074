"""Replies of the bundled world: what each hiccup looks like, what hostile calls get, how an attempt is judged."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steptool.core.types import Observation, Outcome, ToolCall
from steptool.worlds.base import SPLITS, Forks
from steptool.worlds.mini import MiniSession, MiniWorld
from steptool.worlds.mini.plans import Case
from steptool.worlds.mini.schema import OPTIONS

WORLD = MiniWorld(MiniWorld.Config(train_tasks=320, dev_tasks=60, test_tasks=120), seed=17)
CASES = [case for split in SPLITS for case in WORLD.cases(split)]


def _with_hiccup(kind: str) -> Case:
    return next(case for case in CASES if case.hiccup and case.hiccup.kind == kind)


def _replies(case: Case) -> list[Observation]:
    session = WORLD.open(case.task, 0)
    return [session.reply(call) for call in case.solution()]


@pytest.mark.parametrize("kind", ["rate_limit", "unavailable"])
def test_a_transient_failure_passes_when_the_same_call_is_made_again(kind: str) -> None:
    case = _with_hiccup(kind)
    calls, replies = case.solution(), _replies(case)
    index = [reply.error for reply in replies].index(kind)
    assert calls[index] == calls[index + 1]
    assert replies[index + 1].error is None


def test_a_moved_id_is_recovered_from_the_text_of_the_error() -> None:
    case = _with_hiccup("moved")
    assert case.hiccup
    replies = _replies(case)
    index = next(i for i, reply in enumerate(replies) if reply.error == "unknown_id")
    assert any(case.hiccup.old in reply.text for reply in replies[:index]), "the outdated id comes from the world"
    assert json.loads(replies[index].text) == {"error": f"id moved, use {case.hiccup.new}"}
    assert replies[index + 1].error is None


def test_a_missing_argument_is_named_with_a_value_that_works() -> None:
    case = _with_hiccup("missing_argument")
    assert case.hiccup
    reply = next(reply for reply in _replies(case) if reply.error == "missing_argument")
    option = case.hiccup.argument
    assert json.loads(reply.text) == {"error": f"missing argument: {option}, use {OPTIONS[option][0]}"}


@pytest.mark.parametrize("value", [["Oslo"], {"city": "Oslo"}, None, 7, True])
def test_a_code_of_another_type_is_an_invalid_argument(value: object) -> None:
    case = _with_hiccup("code")
    assert case.hiccup
    reply = WORLD.open(case.task, 0).reply(ToolCall(name=case.hiccup.api, arguments={case.hiccup.argument: value}))
    assert reply.error == "invalid_argument"


def test_a_code_is_asked_for_and_can_be_looked_up() -> None:
    case = next(
        case
        for seed in range(20)
        for case in MiniWorld(MiniWorld.Config(train_tasks=90, dev_tasks=6, test_tasks=6), seed).cases("train")
        if case.hiccup and case.hiccup.kind == "code"
    )
    assert case.hiccup
    assert case.hiccup.helper
    calls = case.solution()
    index = calls.index(case.hiccup.helper)
    refused, lookup, accepted = calls[index - 1 : index + 2]
    assert refused.name == accepted.name == case.hiccup.api
    assert lookup.name in {tool.name for tool in case.task.tools}
    assert accepted.arguments[case.hiccup.argument] == case.hiccup.new


def test_an_id_that_names_nothing_and_a_name_in_its_place_are_unknown() -> None:
    case = next(c for c in CASES if not c.hiccup and any("id" in call.arguments for call in c.calls))
    call = next(call for call in case.calls if "id" in call.arguments)
    key = next(iter(call.arguments))
    for value in ("bk1", "The Amber Lantern", ""):
        reply = WORLD.open(case.task, 0).reply(ToolCall(name=call.name, arguments={**call.arguments, key: value}))
        assert reply.error == ("unknown_id" if value else "invalid_argument")


def test_a_tool_that_is_not_offered_is_unknown() -> None:
    session = WORLD.open(CASES[0].task, 0)
    for name in ("", "Finish", "libris", "nothing.at_all", "x" * 10_000):
        assert session.reply(ToolCall(name=name, arguments={})).error == "unknown_tool"


def test_names_are_matched_without_case_and_outer_blanks() -> None:
    case = next(case for case in CASES if not case.hiccup and case.kind == "details")
    call = case.calls[0]
    ((key, name),) = call.arguments.items()
    session = WORLD.open(case.task, 0)
    assert session.reply(ToolCall(name=call.name, arguments={key: f"  {name.upper()} "})) == session.reply(call)


def test_replies_are_short_json_with_error_set_where_it_failed() -> None:
    for case in CASES:
        for reply in _replies(case):
            value = json.loads(reply.text)
            assert len(reply.text) <= 160
            assert (isinstance(value, dict) and "error" in value) == (reply.error is not None)


def test_sessions_do_not_share_state() -> None:
    case = _with_hiccup("rate_limit")
    one, two = WORLD.open(case.task, 0), WORLD.open(case.task, 0)
    calls = case.solution()
    interleaved = [(one.reply(call), two.reply(call)) for call in calls]
    assert all(a == b for a, b in interleaved)
    assert asyncio.run(WORLD.open(case.task, 0).call(calls[0])) == interleaved[0][0]


HOSTILE: list[Any] = [
    None,
    True,
    [],
    {},
    -1,
    10**30,
    10**6000,
    float("nan"),
    float("inf"),
    "",
    "x" * 1_000_000,
    "\ud800",
    "\x00",
    "' OR 1=1 --",
    '"; DROP TABLE books; --',
    {"a": {"b": [1]}},
]
_deep: Any = []
for _ in range(100_000):
    _deep = [_deep]
HOSTILE.append(_deep)


@pytest.mark.parametrize("index", range(len(HOSTILE)))
def test_hostile_arguments_get_an_error_and_never_raise(index: int) -> None:
    tools = {tool.name: (case, tool) for case in CASES if not case.hiccup for tool in case.task.tools}
    for name, (case, tool) in tools.items():
        session = WORLD.open(case.task, 0)
        for argument in tool.parameters["properties"]:
            usual: dict[str, Any] = dict.fromkeys(tool.parameters["required"], 1)
            reply = session.reply(ToolCall(name=name, arguments={**usual, argument: HOSTILE[index]}))
            assert reply.error in ("invalid_argument", "missing_argument", "unknown_id", "empty_result"), (
                name,
                argument,
            )
            assert len(reply.text) < 300
        surprise = ToolCall(name=name, arguments={**usual, "surprise": HOSTILE[index]})
        assert session.reply(surprise).error == "invalid_argument"


def test_the_database_survives_injection() -> None:
    before = [_replies(case) for case in CASES[:20]]
    for case in CASES[:20]:
        session = WORLD.open(case.task, 0)
        for call in case.calls:
            for name in ("'; DELETE FROM books; --", '" UNION SELECT id FROM books --', "%", "_"):
                reply = session.reply(
                    ToolCall(name=call.name, arguments={**call.arguments, next(iter(call.arguments)): name})
                )
                assert reply.error is not None
    assert [_replies(case) for case in CASES[:20]] == before


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100)
@given(data=st.data())
def test_any_json_arguments_get_a_reply(data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(CASES))
    tool = data.draw(st.sampled_from(case.task.tools))
    keys = st.sampled_from(sorted(tool.parameters["properties"])) | st.text(max_size=5)
    arguments = data.draw(st.dictionaries(keys, json_values, max_size=3))
    json.loads(WORLD.open(case.task, 0).reply(ToolCall(name=tool.name, arguments=arguments)).text)


def test_nobody_answers_a_message() -> None:
    assert asyncio.run(WORLD.open(CASES[0].task, 0).say("Which one?")) is None


def test_the_end_of_an_attempt_is_judged_by_its_answer() -> None:
    case = next(case for case in CASES if case.reference.answer_check and case.reference.answer_check.kind == "text")

    def close(answer: str | None) -> Outcome:
        return asyncio.run(WORLD.open(case.task, 0).close(answer))

    assert close(case.answer) == Outcome(solved=1.0, evidence=f"expected {case.answer}, answered {case.answer}")
    assert close("x") == Outcome(solved=0.0, evidence=f"expected {case.answer}, answered x")
    assert close(None) == Outcome(solved=0.0, evidence="no answer")


def test_a_fork_knows_what_was_called_and_learns_nothing_more() -> None:
    case = _with_hiccup("rate_limit")
    calls, replies = case.solution(), _replies(case)
    index = [reply.error for reply in replies].index("rate_limit")
    session = WORLD.open(case.task, 0)
    for call in calls[:index]:
        session.reply(call)
    assert isinstance(session, Forks)
    before = session.fork()
    assert session.reply(calls[index]).error == "rate_limit"
    behind = session.fork()
    assert isinstance(before, MiniSession)
    assert isinstance(behind, MiniSession)
    assert before.reply(calls[index]).error == "rate_limit", "the session's call is not its own"
    assert [behind.reply(call) for call in calls[index + 1 :]] == replies[index + 1 :]

"""Replies of the bundled world: what each hiccup looks like, what hostile calls get, how answers are checked."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steptool.core.types import AnswerCheck, Observation
from steptool.worlds.mini import MiniWorld
from steptool.worlds.mini.answers import is_correct
from steptool.worlds.mini.plans import Case
from steptool.worlds.mini.schema import OPTIONS

WORLD = MiniWorld(17, 320, 60, 120)
CASES = [case for split in ("train", "dev", "test") for case in WORLD.cases(split)]


def _with_hiccup(kind: str) -> Case:
    return next(case for case in CASES if case.hiccup and case.hiccup.kind == kind)


def _replies(case: Case) -> list[Observation]:
    session = WORLD.reset(case.task, 0)
    return [session.reply(call.name, call.arguments) for call in case.solution()]


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
    reply = WORLD.reset(case.task, 0).reply(case.hiccup.api, {case.hiccup.argument: value})
    assert reply.error == "invalid_argument"


def test_a_code_is_asked_for_and_can_be_looked_up() -> None:
    case = next(
        case
        for seed in range(20)
        for case in MiniWorld(seed, 90, 6, 6).cases("train")
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
        reply = WORLD.reset(case.task, 0).reply(call.name, {**call.arguments, key: value})
        assert reply.error == ("unknown_id" if value else "invalid_argument")


def test_a_tool_that_is_not_offered_is_unknown() -> None:
    session = WORLD.reset(CASES[0].task, 0)
    for name in ("", "Finish", "libris", "nothing.at_all", "x" * 10_000):
        assert session.reply(name, {}).error == "unknown_tool"


def test_names_are_matched_without_case_and_outer_blanks() -> None:
    case = next(case for case in CASES if not case.hiccup and case.kind == "details")
    call = case.calls[0]
    ((key, name),) = call.arguments.items()
    session = WORLD.reset(case.task, 0)
    assert session.reply(call.name, {key: f"  {name.upper()} "}) == session.reply(call.name, call.arguments)


def test_replies_are_short_json_with_error_set_where_it_failed() -> None:
    for case in CASES:
        for reply in _replies(case):
            value = json.loads(reply.text)
            assert len(reply.text) <= 160
            assert (isinstance(value, dict) and "error" in value) == (reply.error is not None)


def test_sessions_do_not_share_state() -> None:
    case = _with_hiccup("rate_limit")
    one, two = WORLD.reset(case.task, 0), WORLD.reset(case.task, 0)
    calls = case.solution()
    interleaved = [(one.reply(call.name, call.arguments), two.reply(call.name, call.arguments)) for call in calls]
    assert all(a == b for a, b in interleaved)
    assert asyncio.run(WORLD.reset(case.task, 0).call(calls[0].name, calls[0].arguments)) == interleaved[0][0]


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
        session = WORLD.reset(case.task, 0)
        for argument in tool.parameters["properties"]:
            usual: dict[str, Any] = dict.fromkeys(tool.parameters["required"], 1)
            reply = session.reply(name, {**usual, argument: HOSTILE[index]})
            assert reply.error in ("invalid_argument", "missing_argument", "unknown_id", "empty_result"), (
                name,
                argument,
            )
            assert len(reply.text) < 300
        assert session.reply(name, HOSTILE[index]).error in ("invalid_argument", "missing_argument")
        assert session.reply(name, {**usual, "surprise": HOSTILE[index]}).error == "invalid_argument"


def test_the_database_survives_injection() -> None:
    before = [_replies(case) for case in CASES[:20]]
    for case in CASES[:20]:
        session = WORLD.reset(case.task, 0)
        for call in case.calls:
            for name in ("'; DELETE FROM books; --", '" UNION SELECT id FROM books --', "%", "_"):
                reply = session.reply(call.name, {**call.arguments, next(iter(call.arguments)): name})
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
    reply = WORLD.reset(case.task, 0).reply(tool.name, data.draw(st.dictionaries(keys, json_values, max_size=3)))
    json.loads(reply.text)


@pytest.mark.parametrize(
    ("kind", "expected", "accepted", "refused"),
    [
        (
            "number",
            12.5,
            ["12.5", " $12.50 ", "12.5 USD", "€12.5", "12.50", "12.5."],
            ["12.5 or 13", "12.6", "125", "twelve", "", "12.5 13", "-12.5", "1e400", "9" * 400, "12,5"],
        ),
        ("number", 1250.0, ["1250", "1,250", "$1,250.00"], ["1.250", "1 250"]),
        (
            "text",
            "Nora Lund",
            ["nora lund", '"Nora Lund."', " NORA  LUND "],
            ["Nora", "Nora Lund or Peter", "Nora Lund, Peter"],
        ),
        (
            "set",
            ["Amber Inn", "Misty Inn"],
            ["Amber Inn, Misty Inn", '["Misty Inn", "Amber Inn"]', "misty inn and amber inn", "Amber Inn\nMisty Inn"],
            ["Amber Inn", "Amber Inn, Misty Inn, Silver Inn", "Amber Inn, Amber Inn", "[", "[1, 2]", "", "[" * 400],
        ),
    ],
)
def test_answers_are_checked_exactly_but_not_pedantically(
    kind: Any, expected: Any, accepted: list[str], refused: list[str]
) -> None:
    check = AnswerCheck(kind=kind, expected=expected, tolerance=0.005 if kind == "number" else 0.0)
    assert [answer for answer in accepted if not is_correct(check, answer)] == []
    assert [answer for answer in refused if is_correct(check, answer)] == []

"""Conversations with an endpoint: what a reply does, and what is sent back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steptool import testing
from steptool.core.types import Action, Observation, ToolCall
from steptool.endpoints.chat import Nonsense, Reply, action_of, following, hint, offered, opening, read_reply
from tests.endpoints.fake import says

TASK = testing.task("t1", "Where is order a-1?", testing.tool("find order", "Finds it.", needs={"id": "string"}))


def read(*args: Any, **more: Any) -> Reply:
    return read_reply(says(*args, **more))


def test_a_task_is_a_user_message_and_its_tools_have_names_that_the_api_takes() -> None:
    assert opening(TASK, "") == [{"role": "user", "content": "Where is order a-1?"}]
    assert opening(TASK, "Be brief.")[0] == {"role": "system", "content": "Be brief."}
    told = TASK.model_copy(update={"system": "You work in a shop."})
    assert opening(told, "Be brief.")[0]["content"] == "Be brief.\n\nYou work in a shop."
    assert offered(TASK)[0]["function"]["name"] == "find_order"


def test_calls_are_read_with_the_names_of_the_world() -> None:
    reply = read("Let me look.", calls=[("find_order", {"id": "a-1"}), ("find_order", "")], reasoning_content="Hm.")
    calls = (ToolCall(name="find order", arguments={"id": "a-1"}), ToolCall(name="find order", arguments={}))
    assert action_of(reply, TASK) == Action(thought="Hm.\nLet me look.", calls=calls)
    assert following(reply, (Observation(text="one"), Observation(text="two")), None) == [
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [
                {"id": "c0", "type": "function", "function": {"name": "find_order", "arguments": '{"id": "a-1"}'}},
                {"id": "c1", "type": "function", "function": {"name": "find_order", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c0", "content": "one"},
        {"role": "tool", "tool_call_id": "c1", "content": "two"},
    ]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (read("It is shipped."), "It is shipped."),
        (read([{"type": "text", "text": "It is "}, {"type": "text", "text": "shipped."}]), "It is shipped."),
        (read(None, refusal="I will not."), "I will not."),
        (read("half \ud800"), "half ?"),
    ],
)
def test_a_text_without_calls_is_a_message(reply: Reply, message: str) -> None:
    assert action_of(reply, TASK).message == message
    assert following(reply, (), "And then?")[-1] == {"role": "user", "content": "And then?"}


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (read(calls=[("find_order", '{"id": ')]), "find_order: arguments are not JSON"),
        (read(calls=[("find_order", "[1]")]), "find_order: no JSON object"),
        (read(calls=[("find_order", '{"id": 1e999}')]), "too large"),
        (read(calls=[("find_order", '{"id": "\\ud800"}')]), "half of a surrogate pair"),
        (read(calls=[("find_order", '{"a": ' * 20 + "1" + "}" * 20)]), "nested too deeply"),
        (read(calls=[("Finish", {"answer": "x"})]), "there is no tool Finish"),
        (read(None), "neither a call nor a text"),
        (read("  "), "neither a call nor a text"),
        (read("It is and is and", finish="length", usage=(1, 64)), "no end of the answer (cut after 64 tokens)"),
        (read(calls=[("find_order", '{"id')], finish="length", usage=None), "(cut)"),
    ],
)
def test_what_cannot_be_read_says_why_and_goes_on(reply: Reply, problem: str) -> None:
    action = action_of(reply, TASK)
    assert action.unreadable is not None
    assert problem in action.unreadable
    back = following(reply, (Observation(text=hint(action.unreadable), error="parse_error"),), None)
    assert problem in back[-1]["content"]
    sent = [call["function"]["arguments"] for message in back for call in message.get("tool_calls", [])]
    assert all(isinstance(json.loads(text), dict) for text in sent), "servers refuse a history that is no JSON"
    assert len(sent) == len([message for message in back if message["role"] == "tool"])


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"choices": None},
        {"choices": [1]},
        {"choices": [{"message": "hello"}]},
        {"choices": [{"message": {"tool_calls": [1]}}]},
        {"choices": [{"message": {"tool_calls": [{"function": {"name": 1}}]}}]},
    ],
)
def test_nonsense_is_told_apart(document: Any) -> None:
    with pytest.raises(Nonsense):
        read_reply(document)


def test_odd_counts_are_no_counts() -> None:
    document = says("x") | {"usage": {"prompt_tokens": -1, "completion_tokens": True}}
    assert (read_reply(document).prompt_tokens, read_reply(document).tokens) == (None, None)


TEXTS = st.text(st.characters(codec=None), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
CALLS = st.lists(
    VALUES
    | st.fixed_dictionaries({"id": VALUES, "function": st.fixed_dictionaries({"name": TEXTS, "arguments": VALUES})}),
    max_size=3,
)
MESSAGES = st.fixed_dictionaries(
    {"content": VALUES, "tool_calls": CALLS | VALUES, "reasoning": VALUES, "refusal": VALUES}
)


@given(MESSAGES | VALUES, VALUES, VALUES)
def test_whatever_comes_back_is_nonsense_or_an_action_that_can_be_kept_and_answered(
    message: Any, finish: Any, usage: Any
) -> None:
    try:
        reply = read_reply({"choices": [{"message": message, "finish_reason": finish}], "usage": usage})
    except Nonsense:
        return
    action = action_of(reply, TASK)
    Action.model_validate_json(action.model_dump_json())
    if action.calls:
        back = following(reply, [Observation(text="{}")] * len(action.calls), None)
    elif action.message is not None:
        back = following(reply, (), "And then?")
    else:
        back = following(reply, [Observation(text=hint(action.unreadable or ""))], None)
    json.dumps(back).encode()
    ids = [call["id"] for each in back for call in each.get("tool_calls", [])]
    assert [each["tool_call_id"] for each in back if each["role"] == "tool"] == ids

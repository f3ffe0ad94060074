"""A conversation becomes an attempt, or says why it shows none; and back it is the same conversation.

u what?   a find(a) find(b)   t b   t a   a 9.5          two calls at once, replies by their ids, the answer
u what?   a which?   u the blue one   a 9.5              a message, the user's reply, the answer
u what?   a find(a)                                      the budget ended it
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steptool.core.messages import GAVE_UP, Message, MessageCall
from steptool.core.types import FINISH, Action, Observation, Step, StopReason, Tool, ToolCall
from steptool.traces.conversation import Conversation, Skipped
from steptool.traces.steps import Attempt, attempt_of, messages_of


def user(text: str) -> Message:
    return Message(role="user", text=text)


def says(text: str, **more: Any) -> Message:
    return Message(role="assistant", text=text, **more)


def calls(*calls: tuple[str, str, str], text: str = "", thought: str = "") -> Message:
    """Each an id, a name and the arguments."""
    made = tuple(MessageCall(id=id, name=name, arguments=arguments) for id, name, arguments in calls)
    return Message(role="assistant", text=text, thought=thought, calls=made)


def tool(text: str, id: str = "", **more: Any) -> Message:
    return Message(role="tool", text=text, call_id=id, **more)


def read(*messages: Message, **more: Any) -> Attempt:
    found = attempt_of(Conversation(where="here", messages=messages, **more))
    assert isinstance(found, Attempt), found
    return found


def refused(*messages: Message, **more: Any) -> str:
    found = attempt_of(Conversation(where="here", messages=messages, **more))
    assert isinstance(found, Skipped)
    assert found.where == "here" and not found.is_broken
    return found.reason


FIND = calls(("1", "find", '{"title": "Dune"}'))


def test_calls_at_once_get_their_replies_by_their_ids() -> None:
    done = read(
        user("what?"),
        calls(("1", "find", '{"a": 1}'), ("2", "look", ""), text="I look.", thought="Hm."),
        tool("second", "2"),
        tool("first", "1"),
        says("9.5"),
    )
    assert done.query == "what?"
    assert done.steps[0].action == Action(
        thought="Hm.\n\nI look.", calls=(ToolCall(name="find", arguments={"a": 1}), ToolCall(name="look", arguments={}))
    )
    assert [seen.text for seen in done.steps[0].observations] == ["first", "second"]
    assert done.steps[1].action.calls == (ToolCall(name=FINISH, arguments={"answer": "9.5"}),)
    assert (done.stop_reason, done.answer) == (StopReason.finished, "9.5")


@pytest.mark.parametrize("names", [("", ""), ("find", "look"), ("look", "find")])
def test_replies_without_ids_go_by_name_then_by_order(names: tuple[str, str]) -> None:
    replies = [tool(name or str(number), name=name) for number, name in enumerate(names)]
    done = read(user("q"), calls(("", "find", "{}"), ("", "look", "{}")), *replies)
    expected = ["0", "1"] if names == ("", "") else ["find", "look"]
    assert [seen.text for seen in done.steps[0].observations] == expected


def test_calls_that_share_an_id_get_their_replies_in_order() -> None:
    twice = calls(("1", "find", '{"a": 1}'), ("1", "find", '{"a": 2}'))
    done = read(user("what?"), twice, tool("first", "1"), tool("second", "1"), says("ok"))
    assert [seen.text for seen in done.steps[0].observations] == ["first", "second"]
    third = (tool("first", "1"), tool("second", "1"), tool("third", "1"))
    assert "replies twice" in refused(user("what?"), twice, *third, says("ok"))


def test_a_message_that_the_user_answers_is_a_step_and_the_last_one_the_answer() -> None:
    done = read(user("what?"), says("Which?", thought="Two."), user("the blue"), user("one"), says("9.5"))
    assert done.steps[0].action == Action(thought="Two.", message="Which?")
    assert done.steps[0].reply == "the blue\n\none"
    assert done.answer == "9.5"


def test_text_and_calls_in_messages_of_their_own_are_one_action() -> None:
    done = read(user("q"), says("I look."), FIND, calls(("2", "find", "{}")), tool("a", "1"), tool("b", "2"))
    assert done.steps[0].action.thought == "I look."
    assert [call.name for call in done.steps[0].action.calls] == ["find", "find"]


def test_system_messages_are_left_out_or_put_before_the_query() -> None:
    messages = (Message(role="system", text="Be brief."), says("Hello!"), user("a"), user("b"), says("9.5"))
    assert read(*messages).query == "a\n\nb"
    found = attempt_of(Conversation(where="", messages=messages), with_system=True)
    assert isinstance(found, Attempt) and found.query == "Be brief.\n\na\n\nb"


@pytest.mark.parametrize(
    "ending",
    [(), (FIND,), (FIND, tool("9.5", "1")), (FIND, tool("9.5", "1"), says(" "))],
)
def test_without_an_answer_the_budget_ended_it(ending: tuple[Message, ...]) -> None:
    if not ending:
        assert refused(user("q")) == "the model says nothing"
        return
    done = read(user("q"), *ending)
    assert (done.stop_reason, done.answer) == (StopReason.call_budget, None)
    assert len(done.steps) == 1


def test_who_says_that_he_gives_up_gave_up() -> None:
    done = read(user("q"), says(GAVE_UP))
    assert done.stop_reason is StopReason.gave_up
    assert done.steps[-1].action.calls[0].arguments == {"give_up": True}


def test_an_answer_kept_apart_stands_for_the_last_message_or_the_call_that_gave_it() -> None:
    assert read(user("q"), says("It is 9.5."), answer="9.5").answer == "9.5"
    done = read(user("q"), FIND, tool("9.5", "1"), calls(("2", "final_answer", '{"answer": "9.5"}')), answer="9.5")
    assert (len(done.steps), done.answer) == (2, "9.5")
    assert read(user("q"), answer="9.5").answer == "9.5"


def test_arguments_that_are_no_json_are_an_action_that_could_not_be_read() -> None:
    done = read(user("q"), calls(("1", "find", '{"a": ')), tool("bad json", "1"), FIND, tool("9.5", "1"))
    first = done.steps[0]
    assert first.action.unreadable and first.action.unreadable.startswith("find: arguments are not JSON")
    assert first.action.thought == 'find {"a":'
    assert first.observations == (Observation(text="bad json", error="parse_error"),)


def test_a_failure_is_known_by_the_source_or_by_its_text() -> None:
    replies = (tool("no", "1", error="unknown_id"), tool('{"error": "no such book"}', "2"), tool("9.5", "3"))
    done = read(user("q"), calls(*((id, "find", "{}") for id in "123")), *replies)
    assert [seen.error for seen in done.steps[0].observations] == ["unknown_id", "tool_error", None]


def test_a_call_of_finish_ends_the_attempt() -> None:
    done = read(user("q"), calls(("1", "finish", '{"answer": "9.5"}')), tool("thanks", "1"))
    assert done.steps == (Step(action=Action(calls=(ToolCall(name=FINISH, arguments={"answer": "9.5"}),))),)
    assert "called Finish" in refused(user("q"), calls(("1", "finish", "{}")))
    assert "called Finish" in refused(user("q"), calls(("1", "finish", '{"answer": "a"}')), tool("", "1"), says("b"))


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ((), "nothing is asked"),
        ((says("9.5"),), "nothing is asked"),
        ((user(" "), says("9.5")), "its question is empty"),
        ((user("q" * 100_001), says("9.5")), "its question is over 100,000 characters"),
        ((user("q"), tool("9.5")), "a tool replies that nobody called"),
        ((user("q"), says("a"), tool("9.5")), "a tool replies that nobody called"),
        ((user("q"), FIND, tool("a", "1"), tool("b", "1")), "a tool replies twice, or one that nobody called"),
        ((user("q"), FIND, user("?"), says("a")), "a call has no reply"),
        ((user("q"), FIND, Message(role="system"), FIND, tool("a"), says("a")), "a call has no reply"),
        (
            (user("q"), FIND, tool("a", "1"), user("?"), says("a")),
            "the user speaks between a tool's reply and the model",
        ),
    ],
)
def test_what_shows_no_attempt_is_skipped_for_its_reason(messages: tuple[Message, ...], reason: str) -> None:
    assert refused(*messages).startswith(reason)


def test_the_same_question_with_the_same_tools_is_one_task() -> None:
    one, two = (Tool(name=name, description="", parameters={}) for name in ("a", "b"))
    ids = [
        read(user("q"), says("a"), tools=tools).task_id for tools in ((one, two), (two, one), (one,), (), (one, one))
    ]
    assert ids[0] == ids[1] and ids[2] == ids[4]
    assert len(set(ids)) == 3
    assert read(user("p"), says("a")).task_id not in ids


def test_a_tool_called_finish_is_not_offered() -> None:
    offered = (Tool(name="find", description="", parameters={}), Tool(name="Finish", description="", parameters={}))
    assert read(user("q"), says("a"), tools=offered).tools == ("find",)


def test_keys_are_over_what_was_said_and_not_over_what_a_source_happens_to_know() -> None:
    one = read(user("q"), calls(("1", "find", '{"a": 1, "b": 2}'), thought="Hm."), tool("9.5", "1"), says("9.5"))
    same = read(
        Message(role="system", text="s"),
        user(" q "),
        calls(("x", "find", '{"b":2,"a":1}'), text="I look."),
        tool("9.5", "x"),
        says("9.5 "),
        model="m",
        solved=1.0,
    )
    other = read(user("q"), calls(("1", "find", '{"a": 1, "b": 3}')), tool("9.5", "1"), says("9.5"))
    assert one.keys() == same.keys()
    assert set(one.keys()).isdisjoint(other.keys())


def test_a_beginning_has_the_keys_of_its_whole() -> None:
    whole = (user("q"), FIND, tool("9.5", "1"), says("Which?"), user("this"), says("9.5"))
    keys = read(*whole).keys()
    assert [read(*whole[:length]).keys() for length in (2, 4)] == [keys[:1], keys[:2]]


TEXTS = st.text("ab \n", min_size=1).map(str.strip).filter(bool)
MADE = st.builds(ToolCall, name=st.sampled_from(["find", "look"]), arguments=st.dictionaries(TEXTS, st.integers()))


@st.composite
def steps(draw: st.DrawFn) -> tuple[Step, ...]:
    found = []
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            made = draw(st.lists(MADE, min_size=1, max_size=3))
            seen = tuple(Observation(text=draw(TEXTS)) for _ in made)
            found.append(Step(action=Action(thought=draw(TEXTS), calls=tuple(made)), observations=seen))
        else:
            found.append(Step(action=Action(thought=draw(TEXTS), message=draw(TEXTS)), reply=draw(TEXTS)))
    end = draw(st.sampled_from([{"answer": "9.5"}, {"give_up": True}]))
    return (*found, Step(action=Action(thought=draw(TEXTS), calls=(ToolCall(name=FINISH, arguments=end),))))


@given(TEXTS, steps())
def test_an_attempt_as_messages_is_read_as_the_same_attempt(query: str, done: tuple[Step, ...]) -> None:
    found = read(*messages_of(query, done))
    assert (found.query, found.steps) == (query, done)
    assert found.trajectory(3).attempt == 3

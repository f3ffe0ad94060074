"""Which stream a request belongs to.

first request      user                                    stream 0
action             two calls, a and b
request            user, a and b, reply b, reply a         stream 0: replies are told by their ids
request            user, a and b, reply b                  stream 1: one reply is missing
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from steptool.core.messages import Message, MessageCall
from steptool.core.types import Action, Observation, Step, StopReason
from steptool.gateway.base import ChatReply, ChatRequest, Refused
from steptool.gateway.streams import Ended, Streams
from steptool.testing import call, task, tool
from tests.formats.test_native import native

FORMAT = native("qwen2.5")
TOOLS = (tool("find_order", needs={"id": "string"}), tool("ping"))
TASK = task("t1", "Where is order a-1?", *TOOLS)
USER = Message(role="user", text=TASK.query)
BOTH = Action(thought="Let me see.", calls=(call("find_order", id="a-1"), call("ping")))
DONE = Action(message="It is shipped.")


def act(streams: Streams, action: Action, *messages: Message, tools: Any = TOOLS) -> tuple[int, ChatReply, Message]:
    """Number of the stream that the request belongs to, the reply, and the reply as the agent keeps it."""
    turn = streams.turn(ChatRequest(messages=messages, tools=tools))
    ids = FORMAT.render(action, TASK)
    step = Step(action=action, context_ids=turn.context, action_ids=ids, action_logprobs=(-0.5,) * len(ids))
    reply = streams.acted(turn, step, stopped=True)
    return turn.stream.number, reply, Message(role="assistant", text=reply.text, calls=reply.calls)


def begun() -> tuple[Streams, Message]:
    streams = Streams(FORMAT, TASK)
    number, reply, message = act(streams, BOTH, USER)
    assert (number, reply.finish, reply.text) == (0, "tool_calls", "Let me see.")
    return streams, message


def replies(message: Message, *texts: str) -> list[Message]:
    return [Message(role="tool", call_id=call.id, text=text) for call, text in zip(message.calls, texts, strict=True)]


def observed(streams: Streams, stream: int = 0) -> list[str]:
    (found,) = [each for each in streams.all() if each.number == stream]
    return [seen.text for seen in streams.steps(found)[0].observations]


def test_replies_belong_to_the_calls_that_they_name() -> None:
    streams, said = begun()
    one, two = replies(said, "shipped", "pong")
    number, _, _ = act(streams, DONE, USER, said, two, one)
    assert (number, observed(streams)) == (0, ["shipped", "pong"])
    assert [seen.text for _, seen in streams.calls()] == ["shipped", "pong"]


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(lambda said: said.model_copy(update={"text": " Let me see.\n"}), id="spaces around the text"),
        pytest.param(lambda said: said.model_copy(update={"text": ""}), id="without the text beside the calls"),
        pytest.param(
            lambda said: said.model_copy(
                update={
                    "calls": tuple(
                        each.model_copy(update={"arguments": json.dumps(json.loads(each.arguments), indent=2)})
                        for each in said.calls
                    )
                }
            ),
            id="arguments written anew",
        ),
    ],
)
def test_what_a_client_does_to_an_action_that_changes_nothing(changed: Any) -> None:
    streams, said = begun()
    number, _, _ = act(streams, DONE, USER, changed(said), *replies(said, "shipped", "pong"))
    assert (number, observed(streams)) == (0, ["shipped", "pong"])


def test_ids_may_be_the_agents_own_or_missing() -> None:
    for ids in (["x", "y"], ["", ""]):
        streams, said = begun()
        calls = tuple(each.model_copy(update={"id": id}) for each, id in zip(said.calls, ids, strict=True))
        own = said.model_copy(update={"calls": calls})
        number, _, _ = act(streams, DONE, USER, own, *replies(own, "shipped", "pong"))
        assert (number, observed(streams)) == (0, ["shipped", "pong"])


@pytest.mark.parametrize(
    "request_of",
    [
        pytest.param(lambda said, one, two: [USER, said, one], id="a reply is missing"),
        pytest.param(lambda said, one, two: [USER, said, one, two, USER], id="the user speaks, too"),
        pytest.param(lambda said, one, two: [USER, said, one, one], id="one reply twice"),
        pytest.param(lambda said, one, two: [Message(role="system", text="Hm."), USER, said, one, two], id="a system"),
        pytest.param(
            lambda said, one, two: [
                USER, said.model_copy(update={"calls": said.calls[:1]}), one
            ],
            id="a call is left out",
        ),
        pytest.param(lambda said, one, two: [USER, said.model_copy(update={"text": "No."}), one, two], id="other text"),
        pytest.param(
            lambda said, one, two: [USER.model_copy(update={"text": "Where?"}), said, one, two], id="other question"
        ),
    ],
)  # fmt: skip
def test_anything_else_begins_another_stream(request_of: Any) -> None:
    streams, said = begun()
    messages = request_of(said, *replies(said, "shipped", "pong"))
    number, _, _ = act(streams, DONE, *messages)
    assert number == 1
    new, old = streams.all()
    assert new.steps[0].context_ids == FORMAT.conversation(messages, TOOLS)
    assert (len(new.steps), len(old.steps)) == (1, 1)


def test_other_tools_begin_another_stream() -> None:
    streams, said = begun()
    number, _, _ = act(streams, DONE, USER, said, *replies(said, "shipped", "pong"), tools=TOOLS[:1])
    assert number == 1


def test_two_requests_that_answer_one_action_are_two_streams() -> None:
    streams, said = begun()
    first = ChatRequest(messages=(USER, said, *replies(said, "shipped", "pong")), tools=TOOLS)
    second = ChatRequest(messages=(USER, said, *replies(said, "lost", "pong")), tools=TOOLS)
    one, two = streams.turn(first), streams.turn(second)
    assert one.stream is not two.stream
    assert one.ids[: len(one.stream.ids)] == one.stream.ids
    assert two.ids == FORMAT.conversation(second.messages, TOOLS)
    streams.left(one)
    assert streams.turn(second).stream is one.stream, "a turn that came to nothing leaves its place"


def test_the_longest_history_is_continued() -> None:
    streams, said = begun()
    answers = replies(said, "shipped", "pong")
    _, _, done = act(streams, DONE, USER, said, *answers)
    more = Message(role="user", text="Thanks. And a-2?")
    number, _, _ = act(streams, DONE, USER, said, *answers, done, more)
    assert number == 0
    (stream,) = streams.all()
    assert [step.reply for step in stream.steps] == [None, more.text, None]


def test_how_streams_ended_that_are_not_the_last() -> None:
    streams, said = begun()
    helper = (Message(role="system", text="You help."), Message(role="user", text="Find a-1."))
    act(streams, DONE, *helper)
    other = (Message(role="system", text="You call."), Message(role="user", text="Ping."))
    act(streams, BOTH, *other)
    act(streams, DONE, USER, said, *replies(said, "shipped", "pong"))
    last, sub, caller = streams.all()
    assert last.number == 0
    for reason in (StopReason.finished, StopReason.gave_up, StopReason.call_budget, StopReason.engine_error):
        assert streams.ended(sub, reason) == Ended(StopReason.finished, "It is shipped.")
    assert streams.ended(caller, StopReason.finished) == Ended(StopReason.finished, "Let me see."), "it handed over"
    assert streams.ended(caller, StopReason.gave_up) == Ended(StopReason.finished, "Let me see.")
    assert streams.ended(caller, StopReason.call_budget) == Ended(StopReason.call_budget)
    assert streams.ended(caller, StopReason.world_error) == Ended(StopReason.world_error)


def test_a_stream_that_a_later_one_begins_like_was_rewritten_even_where_it_had_answered() -> None:
    streams = Streams(FORMAT, TASK)
    _, _, done = act(streams, DONE, USER)
    act(streams, DONE, USER, done.model_copy(update={"text": "It is sent."}), Message(role="user", text="Sure?"))
    _, old = streams.all()
    assert streams.ended(old, StopReason.finished) == Ended(StopReason.rewritten)


def test_a_stream_beside_which_another_began_alike_was_not_rewritten_by_it() -> None:
    """Two sub-agents with one beginning that run side by side: neither takes the other's place."""
    streams, said = begun()
    act(streams, DONE, USER, Message(role="user", text="And fast."))
    act(streams, DONE, USER, said, *replies(said, "shipped", "pong"))
    last, beside = streams.all()
    assert (last.number, beside.number) == (0, 1)
    assert streams.ended(beside, StopReason.finished) == Ended(StopReason.finished, "It is shipped.")


def test_what_the_format_cannot_write_is_refused() -> None:
    streams = Streams(FORMAT, TASK)
    broken = Message(role="assistant", calls=(MessageCall(name="ping", arguments="[]"),))
    with pytest.raises(Refused, match="the messages cannot be written: a call of ping"):
        streams.turn(ChatRequest(messages=(USER, broken, USER)))
    assert streams.all() == []


def test_a_long_reply_is_recorded_as_the_policy_sees_it() -> None:
    streams, said = begun()
    most = FORMAT.max_observation
    act(streams, DONE, USER, said, *replies(said, "x" * (most + 1), '{"error": "unknown_id"}'))
    (stream,) = streams.all()
    long, failed = stream.steps[0].observations
    assert len(long.text) == most + 3
    assert failed == Observation(text='{"error": "unknown_id"}', error="unknown_id")

"""The server, by the official client and by clients that do everything wrong."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI, OpenAI

from steptool.core.errors import StepToolError
from steptool.core.messages import Message, MessageCall
from steptool.core.types import Tool
from steptool.gateway import connections, server
from steptool.gateway.base import ChatReply, ChatRequest, Refused
from steptool.gateway.server import Gateway

FUNCTION = {"name": "find", "description": "Finds.", "parameters": {"type": "object", "properties": {"id": {}}}}
CHAT_TOOLS: Any = [{"type": "function", "function": FUNCTION}]
RESPONSE_TOOLS: Any = [{"type": "function", **FUNCTION, "strict": False}]
FIND = Tool.model_validate(FUNCTION)
HELLO: Any = [{"role": "user", "content": "Hello."}]
CALL = ChatReply(
    text="Let me see.",
    calls=(MessageCall(id="call_0_0_0", name="find", arguments='{"id": "é"}'),),
    prompt_tokens=7,
    tokens=5,
    finish="tool_calls",
)
SAID = ChatReply(text="It is <here> „é“.", prompt_tokens=9, tokens=3)


class Policy:
    """Answers in turn, the last reply for ever; `asked` keeps the requests."""

    def __init__(self, *replies: ChatReply | Exception) -> None:
        self.replies, self.asked = list(replies), list[ChatRequest]()

    async def __call__(self, request: ChatRequest) -> ChatReply:
        self.asked.append(request)
        reply = self.replies[min(len(self.asked), len(self.replies)) - 1]
        if isinstance(reply, Exception):
            raise reply
        return reply


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    gateway = Gateway()
    gateway.start()
    yield gateway
    gateway.close()


def client(gateway: Gateway, policy: Any, **options: Any) -> OpenAI:
    return OpenAI(base_url=gateway.start(), api_key=gateway.open(policy), **{"max_retries": 0, **options})


# Chat completions


def test_a_request_is_read_whole(gateway: Gateway) -> None:
    policy = Policy(SAID)
    client(gateway, policy).chat.completions.create(
        model="any",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"id": 1}'}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
        ],
        tools=CHAT_TOOLS,
        max_completion_tokens=12,
        temperature=0.1,
        top_p=0.5,
        parallel_tool_calls=False,
        stop=["x"],
        user="u",
    )  # fmt: skip
    (asked,) = policy.asked
    assert asked == ChatRequest(
        messages=(
            Message(role="system", text="Be brief."),
            Message(role="user", text="One.\nTwo."),
            Message(role="assistant", calls=(MessageCall(id="c1", name="find", arguments='{"id": 1}'),)),
            Message(role="tool", text="1", call_id="c1"),
        ),
        tools=(FIND,),
        max_tokens=12,
        model="any",
    )


def test_calls_and_texts_are_written(gateway: Gateway) -> None:
    asking = client(gateway, Policy(CALL, SAID)).chat.completions
    called = asking.create(model="any", messages=HELLO, tools=CHAT_TOOLS)
    (choice,) = called.choices
    assert (choice.finish_reason, choice.message.content, called.model) == ("tool_calls", "Let me see.", "any")
    (made,) = choice.message.tool_calls or ()
    assert made.type == "function"
    assert (made.id, made.function.name, made.function.arguments) == ("call_0_0_0", "find", '{"id": "é"}')
    assert called.usage is not None
    assert (called.usage.prompt_tokens, called.usage.completion_tokens, called.usage.total_tokens) == (7, 5, 12)
    said = asking.create(model="any", messages=HELLO).choices[0]
    assert (said.finish_reason, said.message.content, said.message.tool_calls) == ("stop", SAID.text, None)


@pytest.mark.parametrize("reply", [CALL, SAID, SAID.model_copy(update={"finish": "length"}), ChatReply(text="")])
def test_a_stream_says_what_the_whole_says(gateway: Gateway, reply: ChatReply) -> None:
    asking = client(gateway, Policy(reply)).chat.completions
    whole = asking.create(model="any", messages=HELLO, tools=CHAT_TOOLS)
    chunks = list(
        asking.create(
            model="any", messages=HELLO, tools=CHAT_TOOLS, stream=True, stream_options={"include_usage": True}
        )
    )
    usage = [chunk.usage for chunk in chunks if chunk.usage]
    deltas = [choice for chunk in chunks for choice in chunk.choices]
    message = whole.choices[0].message
    assert "".join(each.delta.content or "" for each in deltas) == (message.content or "")
    pieces = [call for each in deltas for call in each.delta.tool_calls or ()]
    made = [(call.id, call.function and call.function.arguments) for call in pieces]
    assert made == [(call.id, call.function.arguments) for call in message.tool_calls or ()]  # type: ignore[union-attr]
    assert deltas[-1].finish_reason == whole.choices[0].finish_reason
    assert usage == [whole.usage]


def test_a_choice_of_no_tool_offers_none(gateway: Gateway) -> None:
    policy = Policy(SAID)
    asking = client(gateway, policy).chat.completions
    for choice in ("none", "required", {"type": "function", "function": {"name": "find"}}):
        asking.create(model="any", messages=HELLO, tools=CHAT_TOOLS, tool_choice=choice)  # type: ignore[call-overload]
    assert [(len(each.tools), each.tool_choice) for each in policy.asked] == [(0, "none"), (1, "required"), (1, "find")]


# Responses


def test_a_conversation_by_responses(gateway: Gateway) -> None:
    policy = Policy(CALL, SAID)
    asking = client(gateway, policy).responses
    first = asking.create(model="any", input="Where?", instructions="Be brief.", tools=RESPONSE_TOOLS)
    message, made = first.output
    assert message.type == "message" and made.type == "function_call"
    assert (made.call_id, made.name, made.arguments) == ("call_0_0_0", "find", '{"id": "é"}')
    assert first.usage is not None
    assert (first.status, first.usage.total_tokens, first.output_text) == ("completed", 12, "Let me see.")
    items: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "Where?"}]},
        *(item.model_dump(exclude_none=True) for item in first.output),
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "function_call_output", "call_id": "call_0_0_0", "output": "here"},
    ]
    second = asking.create(model="any", input=items, instructions="Be brief.", tools=RESPONSE_TOOLS)
    assert second.output_text == SAID.text
    assert policy.asked[1].messages == (
        Message(role="system", text="Be brief."),
        Message(role="user", text="Where?"),
        Message(role="assistant", text="Let me see.", calls=CALL.calls),
        Message(role="tool", text="here", call_id="call_0_0_0"),
    )


def test_a_response_goes_on_from_an_earlier_one(gateway: Gateway) -> None:
    policy = Policy(CALL, SAID, SAID)
    asking = client(gateway, policy).responses
    first = asking.create(model="any", input="Where?", instructions="Be brief.", tools=RESPONSE_TOOLS)
    answer: Any = [{"type": "function_call_output", "call_id": "call_0_0_0", "output": "here"}]
    second = asking.create(model="any", input=answer, previous_response_id=first.id, tools=RESPONSE_TOOLS)
    asking.create(model="any", input="Sure?", previous_response_id=second.id, instructions="Be kind.")
    assert [(each.role, each.text) for each in policy.asked[2].messages] == [
        ("system", "Be kind."), ("user", "Where?"), ("assistant", "Let me see."), ("tool", "here"),
        ("assistant", SAID.text), ("user", "Sure?"),
    ]  # fmt: skip
    another = client(gateway, policy).responses
    with pytest.raises(openai.BadRequestError, match="none of this attempt's"):
        another.create(model="any", input="?", previous_response_id=first.id)


@pytest.mark.parametrize("reply", [CALL, SAID, SAID.model_copy(update={"finish": "length"}), ChatReply(text="")])
def test_the_events_of_a_response_add_up_to_it(gateway: Gateway, reply: ChatReply) -> None:
    asking = client(gateway, Policy(reply)).responses
    whole = asking.create(model="any", input="Where?", tools=RESPONSE_TOOLS)
    events = list(asking.create(model="any", input="Where?", tools=RESPONSE_TOOLS, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    arguments = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert deltas == whole.output_text
    assert arguments == [call.arguments for call in reply.calls]
    last = events[-1]
    assert last.type == ("response.incomplete" if reply.finish == "length" else "response.completed")
    assert [item.type for item in last.response.output] == [item.type for item in whole.output]
    assert last.response.usage == whole.usage


# Refusals


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"functions": [FUNCTION]}, "functions"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
         "messages.0.content.0.type"),
        ({"messages": [{"role": "critic", "content": "?"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": "?", "tool_calls": [{"function": {"name": "a"}}]}]}, "messages.0"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": CHAT_TOOLS * 2}, "tools"),
        ({"tool_choice": {"type": "function", "function": {"name": "lose"}}}, "tool_choice"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_its_name(gateway: Gateway, body: Any, param: str) -> None:
    policy = Policy(SAID)
    with pytest.raises(openai.BadRequestError) as refused:
        client(gateway, policy).chat.completions.create(**{"model": "any", "messages": HELLO, **body})
    assert (refused.value.param, policy.asked) == (param, [])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": []}, "input"),
        ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {}}}}, "text.format"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0"),
        ({"input": [{"type": "function_call", "call_id": "x"}]}, "input.0.function_call.name"),
    ],
)
def test_what_responses_cannot_do_is_refused_by_its_name(gateway: Gateway, body: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client(gateway, Policy(SAID)).responses.create(**{"model": "any", "input": "Where?", **body})
    assert refused.value.param == param


@pytest.mark.parametrize("key", ["wrong", "Bearer x", "é"])
def test_a_key_of_no_attempt_opens_nothing(gateway: Gateway, key: str) -> None:
    for method, path in (("GET", "models"), ("POST", "chat/completions"), ("POST", "responses")):
        headers = {b"Authorization": b"Bearer " + key.encode()}
        answer = httpx.request(method, f"{gateway.start()}/{path}", headers=headers, content=b"{}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert httpx.get(f"{gateway.start()}/models").status_code == 401


def test_a_key_opens_its_own_attempt_until_it_is_closed(gateway: Gateway) -> None:
    one, two = Policy(SAID), Policy(SAID)
    first, second = client(gateway, one), client(gateway, two)
    first.chat.completions.create(model="any", messages=HELLO)
    assert (len(one.asked), len(two.asked)) == (1, 0)
    gateway.close_key(first.api_key)
    gateway.close_key(first.api_key)
    with pytest.raises(openai.AuthenticationError, match="no running attempt"):
        first.with_options(max_retries=2).chat.completions.create(model="any", messages=HELLO)
    second.chat.completions.create(model="any", messages=HELLO)
    assert len(two.asked) == 1


def test_the_official_client_does_not_repeat_what_was_refused(gateway: Gateway) -> None:
    policy = Policy(Refused("no more", code="insufficient_quota"))
    with pytest.raises(openai.BadRequestError, match="no more") as refused:
        client(gateway, policy, max_retries=3).chat.completions.create(model="any", messages=HELLO)
    assert (refused.value.code, len(policy.asked)) == ("insufficient_quota", 1)


def test_a_fault_of_ours_is_told_without_its_details_and_others_go_on(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    policy = Policy(RuntimeError("secret"), SAID)
    asking = client(gateway, policy, max_retries=3).chat.completions
    with pytest.raises(openai.InternalServerError) as failed:
        asking.create(model="any", messages=HELLO)
    assert "secret" not in str(failed.value)
    assert "secret" in caplog.text
    assert len(policy.asked) == 1
    assert asking.create(model="any", messages=HELLO).choices[0].message.content == SAID.text


def test_other_addresses_say_what_there_is(gateway: Gateway) -> None:
    asking = client(gateway, Policy(SAID))
    with pytest.raises(openai.NotFoundError, match="POST /v1/chat/completions"):
        asking.embeddings.create(model="any", input="a")
    assert [model.id for model in asking.models.list()] == ["policy"]
    assert asking.models.retrieve("org/my-model").id == "org/my-model"


# Bodies that are none


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("messages", "tools", "tool_choice", "max_tokens", "stream", "stream_options", "model", "n", "input", "text",
          "instructions", "previous_response_id", "role", "content", "tool_calls", "type", "function", "name", "id",
          "arguments", "parameters", "call_id", "output")  # fmt: skip
SHAPED = st.recursive(
    VALUES | st.sampled_from(["user", "assistant", "tool", "message", "function", "text"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6),
    max_leaves=20,
)


HTTP = httpx.Client(trust_env=False)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(["chat/completions", "responses"]), body=st.dictionaries(st.sampled_from(FIELDS), SHAPED))
def test_no_body_is_a_fault(gateway: Gateway, path: str, body: Any) -> None:
    headers = {"Authorization": f"Bearer {gateway.open(Policy(SAID))}"}
    raw = json.dumps(body)
    answer = HTTP.post(f"{gateway.start()}/{path}", headers=headers, content=raw.encode("utf-8", "replace"))
    assert answer.status_code in (200, 400)
    if answer.status_code == 400:
        assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400),
        (b'{"messages": [{"role": "user", "content": "' + b"x" * (5 << 20) + b'"}]}', 413),
        (b'{"max_tokens": ' + b"9" * 10_000 + b"}", 400),
    ],
    ids=["empty", "broken", "no UTF-8", "deep", "deep and closed", "half a pair", "long", "a long number"],
)
def test_a_body_that_is_none_is_refused(gateway: Gateway, raw: bytes, status: int) -> None:
    headers = {"Authorization": f"Bearer {gateway.open(Policy(SAID))}"}
    answer = httpx.post(f"{gateway.start()}/chat/completions", headers=headers, content=raw)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


# Connections


def connect(gateway: Gateway) -> socket.socket:
    host, port = gateway.start().removeprefix("http://").removesuffix("/v1").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def is_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1 << 16) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "sent",
    [
        b"\0" * 100,
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (1 << 20),
    ],
    ids=["no HTTP", "no length", "a long header"],
)
def test_what_is_no_http_ends_its_connection_alone(gateway: Gateway, sent: bytes) -> None:
    with connect(gateway) as bad:
        try:
            bad.sendall(sent)
        except (BrokenPipeError, ConnectionResetError):
            return
        while not is_ended(bad):
            continue
    assert client(gateway, Policy(SAID)).models.list()


def test_a_connection_that_sends_half_of_a_request_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections.Connections, "IDLE_S", 0.3)
    monkeypatch.setattr(connections.Connections, "WATCH_S", 0.05)
    monkeypatch.setattr(server, "BODY_S", 0.3)
    gateway = Gateway()
    try:
        with connect(gateway) as silent, connect(gateway) as headless, connect(gateway) as bodyless:
            headless.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost:")
            key = gateway.open(Policy(SAID))
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
            bodyless.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            said = b""
            while not said.endswith(b"}"):
                said += bodyless.recv(1 << 16)
            assert b"did not arrive within 0.3 s" in said
            assert is_ended(silent)
            assert is_ended(headless)
    finally:
        gateway.close()


def test_where_there_are_too_many_connections_the_idlest_makes_room() -> None:
    gateway = Gateway()
    gateway._connections.most = 5
    try:
        gateway.start()
        gateway._loop.call(lambda: time.sleep(0.2))  # they come all at once
        idle = [connect(gateway) for _ in range(60)]
        asking = client(gateway, Policy(SAID))
        assert asking.chat.completions.create(model="any", messages=HELLO).choices[0].message.content == SAID.text
        assert is_ended(idle[0])
        assert len(gateway._connections._open) <= 5
        for each in idle:
            each.close()
    finally:
        gateway.close()


def test_an_attempt_has_so_many_requests_at_once_and_another_is_not_held_up(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_AT_ONCE", 5)
    free = threading.Event()

    async def slow(request: ChatRequest) -> ChatReply:
        while not free.is_set():
            await asyncio.sleep(0.01)
        return SAID

    async def crowd() -> list[Any]:
        async with AsyncOpenAI(base_url=gateway.start(), api_key=gateway.open(slow), max_retries=0) as many:
            waiting = [asyncio.create_task(many.chat.completions.create(model="x", messages=HELLO)) for _ in range(8)]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=10)
            another = AsyncOpenAI(base_url=gateway.start(), api_key=gateway.open(Policy(SAID)))
            assert (await another.chat.completions.create(model="x", messages=HELLO)).choices
            free.set()
            return await asyncio.gather(*waiting, return_exceptions=True)

    found = asyncio.run(crowd())
    refused = [each for each in found if isinstance(each, openai.RateLimitError)]
    assert len(refused) == 3
    assert "5 requests of this attempt are running" in str(refused[0])


def test_bodies_that_never_end_take_no_connections_from_other_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_AT_ONCE", 5)
    gateway = Gateway()
    gateway._connections.most = 10
    head = f"POST /v1/responses HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {gateway.open(Policy(SAID))}\r\n"
    try:
        slow = [connect(gateway) for _ in range(10)]
        for each in slow:
            each.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        refused = 0
        while refused < 5:
            told, _, _ = select.select(slow, [], [], 10)
            assert told, "those that are too many are told so"
            refused += sum(b"5 requests of this attempt are running" in each.recv(1 << 16) for each in told)
        assert client(gateway, Policy(SAID)).chat.completions.create(model="any", messages=HELLO).choices
        for each in slow:
            each.close()
    finally:
        gateway.close()


def test_closing_a_key_ends_what_it_is_waiting_for(gateway: Gateway) -> None:
    began = threading.Event()

    async def never(request: ChatRequest) -> ChatReply:
        began.set()
        await asyncio.sleep(3600)
        raise AssertionError

    asking = client(gateway, never)
    found: list[Exception] = []

    def wait() -> None:
        try:
            asking.chat.completions.create(model="any", messages=HELLO)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
            found.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert began.wait(10)
    gateway.close_key(asking.api_key)
    thread.join(10)
    assert [type(error) for error in found] == [openai.APIConnectionError]


def test_a_client_that_goes_away_in_the_middle_is_no_fault(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    head = f"POST /v1/responses HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {gateway.open(Policy(SAID))}\r\n"
    for _ in range(3):
        with connect(gateway) as gone:
            gone.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    assert client(gateway, Policy(SAID)).models.list()
    time.sleep(0.2)
    assert caplog.text == ""


def test_a_client_that_reads_nothing_holds_nobody_up(gateway: Gateway) -> None:
    key = gateway.open(Policy(ChatReply(text="x" * (8 << 20))))
    with connect(gateway) as deaf:
        body = json.dumps({"messages": HELLO}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
        deaf.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        started = time.monotonic()
        assert client(gateway, Policy(SAID)).chat.completions.create(model="any", messages=HELLO).choices
        assert time.monotonic() - started < 5


# Life


def test_the_policy_answers_where_its_attempt_runs(gateway: Gateway) -> None:
    loops: list[Any] = []

    async def where(request: ChatRequest) -> ChatReply:
        loops.append(asyncio.get_running_loop())
        return SAID

    async def main() -> None:
        async with AsyncOpenAI(base_url=gateway.start(), api_key=gateway.open(where)) as asking:
            await asking.chat.completions.create(model="x", messages=HELLO)
        loops.append(asyncio.get_running_loop())

    asyncio.run(main())
    assert loops[0] is loops[1]
    client(gateway, where).chat.completions.create(model="x", messages=HELLO)
    assert loops[2] is not loops[0], "opened on no loop, it answers on the gateway's own"


def test_64_agents_at_once_get_their_own_replies(gateway: Gateway) -> None:
    async def echo(request: ChatRequest) -> ChatReply:
        await asyncio.sleep(0)
        return ChatReply(text=request.messages[-1].text)

    async def one(number: int) -> list[str | None]:
        async with AsyncOpenAI(base_url=gateway.start(), api_key=gateway.open(echo)) as asking:
            return [
                (
                    await asking.chat.completions.create(
                        model="x", messages=[{"role": "user", "content": f"{number} {turn}"}]
                    )
                )
                .choices[0]
                .message.content
                for turn in range(3)
            ]

    async def all_of_them() -> list[list[str | None]]:
        return await asyncio.gather(*map(one, range(64)))

    assert asyncio.run(all_of_them()) == [[f"{number} {turn}" for turn in range(3)] for number in range(64)]


def test_it_starts_again_after_it_was_closed_and_leaves_no_thread() -> None:
    before = threading.active_count()
    gateway = Gateway()
    first = gateway.start()
    assert gateway.start() == first
    gateway.close()
    gateway.close()
    assert threading.active_count() == before
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{first}/models")
    assert client(gateway, Policy(SAID)).models.list()
    gateway.close()


def test_a_port_that_is_taken_is_named(gateway: Gateway) -> None:
    port = int(gateway.start().removesuffix("/v1").rpartition(":")[2])
    with pytest.raises(StepToolError, match=f"127.0.0.1:{port}: cannot listen") as refused:
        Gateway(port=port).start()
    assert refused.value.fix


@pytest.mark.parametrize(
    ("host", "reached"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("127.0.0.2", None)]
)
def test_it_listens_on_this_machine_alone_unless_it_is_told_otherwise(host: str, reached: str | None) -> None:
    assert Gateway()._host == "127.0.0.1"
    gateway = Gateway(host)
    try:
        assert gateway.start().startswith(f"http://{reached or host}:")
        assert client(gateway, Policy(SAID)).models.list()
    finally:
        gateway.close()


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(StepToolError, match=r"gateway 192\.0\.2\.1:0: cannot listen"):
        Gateway("192.0.2.1").start()


def test_a_reply_is_not_held_back(gateway: Gateway) -> None:
    """Nagle's algorithm and a delayed acknowledgement make 40 ms of each."""
    asking = client(gateway, Policy(SAID)).chat.completions
    took = []
    for _ in range(20):
        started = time.monotonic()
        asking.create(model="any", messages=HELLO)
        took.append(time.monotonic() - started)
    assert min(took) < 0.03

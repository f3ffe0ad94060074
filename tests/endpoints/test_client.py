"""What the client does with an endpoint that answers, repeats itself, breaks, or costs too much.

requests sent        429 ─ wait as it says ─ 500 ─ wait ─ nonsense ─ wait ─ an answer ─► store, ledger
the same again       nothing is sent
"""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steptool.core.errors import DataError, WorldError
from steptool.endpoints import client as client_module
from steptool.endpoints.budget import CeilingReached
from steptool.endpoints.chat import Reply, TooLong
from steptool.endpoints.client import Client, EndpointFailed, EndpointRefuses
from steptool.endpoints.settings import EndpointSettings
from tests.endpoints.fake import Answer, Fake, Fault, fake, says

ASKED = [{"role": "user", "content": "Where is it?"}]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Waits between tries are short, and the store lies in a folder of its own."""
    import openai._base_client as base

    monkeypatch.setattr(base, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(base, "MAX_RETRY_DELAY", 0.02)
    monkeypatch.setattr(client_module, "FIRST_WAIT_S", 0.01)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def script() -> list[Answer]:
    """What the endpoint answers, in turn; the last one for ever."""
    return []


@pytest.fixture
def endpoint(script: list[Answer]) -> Iterator[Fake]:
    with fake(lambda _: script.pop(0) if len(script) > 1 else script[0]) as served:
        yield served


def settings(endpoint: Fake, **more: Any) -> EndpointSettings:
    return EndpointSettings.model_validate({"url": endpoint.url, "model": "teacher", "max_retries": 3, **more})


def ask(wanted: EndpointSettings, *attempts: int, tools: Any = ()) -> list[Reply]:
    client = Client(wanted)

    async def all_at_once() -> list[Reply]:
        options: dict[str, Any] = {"most": wanted.max_completion_tokens, "temperature": 0.0}
        return list(await asyncio.gather(*(client.ask(ASKED, tools, attempt=each, **options) for each in attempts)))

    try:
        return asyncio.run(all_at_once())
    finally:
        client.close()


def kept(of: EndpointSettings) -> int:
    """How many answers are in the store."""
    with sqlite3.connect(of.store) as database:
        return int(database.execute("SELECT count(*) FROM answers").fetchone()[0])


def test_an_answer_is_kept_and_the_same_is_not_asked_again(endpoint: Fake, script: list[Answer]) -> None:
    script[:] = [says("here"), says("there")]
    wanted = settings(endpoint)
    assert [each.text for each in ask(wanted, 0)] == ["here"]
    assert [each.text for each in ask(wanted, 0)] == ["here"], "by another client, too"
    assert [each.text for each in ask(wanted, 1)] == ["there"], "another attempt gets an answer of its own"
    assert [each.text for each in ask(settings(endpoint, model="other"), 0)] == ["there"]
    assert len(endpoint.requests) == 3
    assert (endpoint.requests[0]["model"], endpoint.requests[0]["max_completion_tokens"]) == ("teacher", 2048)
    assert Path(wanted.store).stat().st_mode & 0o077 == 0, "others cannot read what users asked"


def test_faults_that_pass_are_outlived(endpoint: Fake, script: list[Answer]) -> None:
    script[:] = [Fault(429, headers={"Retry-After": "0.2"}), Fault(500), Fault(closes=True, status=200), says("here")]
    assert [each.text for each in ask(settings(endpoint), 0)] == ["here"]
    assert len(endpoint.requests) == 4
    assert endpoint.times[1] - endpoint.times[0] >= 0.2, "as long as the endpoint asks for"


@pytest.mark.parametrize(
    "body", ["<html>busy</html>", '{"choices": [', '{"error": {"message": "busy"}}', '{"choices": []}', "[]", "NaN", ""]
)
def test_nonsense_is_asked_again_and_then_ends_the_attempt(endpoint: Fake, script: list[Answer], body: str) -> None:
    script[:] = [Fault(200, body), says("here")]
    assert [each.text for each in ask(settings(endpoint), 0)] == ["here"]
    script[:] = [Fault(200, body)]
    with pytest.raises(EndpointFailed, match="no chat completion"):
        ask(settings(endpoint, max_retries=1), 7)
    assert kept(settings(endpoint)) == 1, "nonsense is not kept"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(500), "500"),
        (Fault(429), "429"),
        (Fault(400, '{"error": {"message": "no temperature, please"}}'), "no temperature, please"),
        (Fault(200, "x" * 50, closes=True), "peer closed connection"),
        (Fault(after_s=2.0), "timed out"),
        (Fault(drips=True), "not whole after 0.5 s"),
        (Fault(200, "[" + " " * (5 << 20) + "]"), "more than 4194304 bytes"),
    ],
)
def test_faults_that_stay_end_the_attempt(endpoint: Fake, script: list[Answer], fault: Fault, said: str) -> None:
    script[:] = [fault]
    with pytest.raises(EndpointFailed, match=said):
        ask(settings(endpoint, max_retries=1, timeout_s=0.5), 0)
    assert len(endpoint.requests) == (1 if fault.status == 400 else 2)


def test_an_endpoint_that_is_not_there_ends_the_attempt() -> None:
    with pytest.raises(EndpointFailed, match="connect"):
        ask(EndpointSettings(url="http://127.0.0.1:9/v1", model="x", max_retries=0), 0)


@pytest.mark.parametrize(
    ("status", "code", "fix"),
    [
        (401, "invalid_api_key", "API key into THEIR_KEY"),
        (403, None, "API key into THEIR_KEY"),
        (404, "model_not_found", "mend `url`"),
        (429, "insufficient_quota", "pay the vendor"),
    ],
)
def test_what_will_never_be_answered_ends_the_command(
    endpoint: Fake, script: list[Answer], monkeypatch: pytest.MonkeyPatch, status: int, code: str | None, fix: str
) -> None:
    monkeypatch.setenv("THEIR_KEY", "sk-very-secret")
    body = '{"error": {"message": "not with sk-very-secret", "code": %s}}' % (f'"{code}"' if code else "null")
    script[:] = [Fault(status, body)]
    with pytest.raises(EndpointRefuses, match=fix) as refused:
        ask(settings(endpoint, key="THEIR_KEY", max_retries=0), 0)
    assert "sk-very-secret" not in str(refused.value)
    assert "[THEIR_KEY]" in str(refused.value)
    assert endpoint.headers[0]["authorization"] == "Bearer sk-very-secret"


SECRET = "sk-very-secret-0123456789"


@pytest.mark.parametrize("before", [0, 63, 72, 261, 270])
def test_no_part_of_a_key_is_shown_where_a_long_answer_is_cut(
    endpoint: Fake, script: list[Answer], monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    monkeypatch.setenv("THEIR_KEY", SECRET)
    said = "x" * before + SECRET + "y" * 400
    for fault in (Fault(400, json.dumps({"error": {"message": said}})), Fault(200, said)):
        script[:] = [fault]
        with pytest.raises(EndpointFailed) as failed:
            ask(settings(endpoint, key="THEIR_KEY", max_retries=0), 0)
        assert SECRET[:4] not in str(failed.value)


def test_a_key_that_comes_back_in_an_answer_is_neither_kept_nor_shown(
    endpoint: Fake, script: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEIR_KEY", SECRET)
    script[:] = [says(f"you sent {SECRET}", calls=[("find", {"key": SECRET})])]
    wanted = settings(endpoint, key="THEIR_KEY")
    (reply,) = ask(wanted, 0)
    assert reply.text == "you sent [THEIR_KEY]"
    assert SECRET not in reply.calls[0].arguments
    assert not [file for file in Path(wanted.store).parent.iterdir() if SECRET.encode() in file.read_bytes()]
    monkeypatch.setenv("THEIR_KEY", "test")
    script[:] = [says("the latest one")]
    assert [each.text for each in ask(wanted, 1)] == ["the latest one"], "a stand-in of a key changes no answer"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://", "is an address"),
        ("https:///v1", "is an address"),
        ("https://[a/v1", "is no address"),
        ("https://host:99999/v1", "is no address"),
        ("https://host:port/v1", "is no address"),
        ("https://host/v1?key=sk-1", "ends before any"),
        ("https://ann:secret@host/v1", "holds a name or a password"),
    ],
)
def test_an_address_that_cannot_be_asked_is_refused_when_it_is_read(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EndpointSettings(url=url, model="x")


def test_one_place_has_one_ledger() -> None:
    assert EndpointSettings(url="https://host/v1/", model="x").url == "https://host/v1"


def test_a_conversation_that_is_too_long_is_told_apart(endpoint: Fake, script: list[Answer]) -> None:
    script[:] = [Fault(400, '{"error": {"message": "8193 > 8192", "code": "context_length_exceeded"}}')]
    with pytest.raises(TooLong):
        ask(settings(endpoint), 0)


def test_a_key_that_is_not_set_is_said_before_anything_is_sent(endpoint: Fake) -> None:
    with pytest.raises(WorldError, match="NO_SUCH_KEY is not set"):
        Client(settings(endpoint, key="NO_SUCH_KEY"))
    assert not endpoint.requests


def test_the_ledger_counts_tokens_and_money(endpoint: Fake, script: list[Answer]) -> None:
    script[:] = [says("here", usage=(1_000_000, 500_000))]
    client = Client(settings(endpoint, price_in=2.0, price_out=8.0))
    asyncio.run(client.ask(ASKED, [], most=100, attempt=0, temperature=None))
    asyncio.run(client.ask(ASKED, [], most=100, attempt=0, temperature=None))
    spent = client.spent
    client.close()
    assert (spent.answers, spent.prompt_tokens, spent.tokens, spent.money) == (1, 1_000_000, 500_000, 6.0)
    assert str(spent) == "1 answers paid for, 1000000 tokens in, 500000 out, 6 of money"
    assert "temperature" not in endpoint.requests[0]


def test_an_endpoint_that_does_not_count_is_taken_to_have_used_all_it_can(endpoint: Fake, script: list[Answer]) -> None:
    script[:] = [says("here", usage=None)]
    client = Client(settings(endpoint))
    asyncio.run(client.ask(ASKED, [], most=100, attempt=0, temperature=None))
    spent = client.spent
    client.close()
    assert spent.tokens == 100
    assert spent.prompt_tokens > 50


@pytest.mark.parametrize("at_once", [False, True])
def test_a_ceiling_is_never_passed_and_what_was_paid_for_is_kept(
    endpoint: Fake, script: list[Answer], at_once: bool
) -> None:
    script[:] = [says("here", usage=(100, 900))]
    wanted = settings(endpoint, price_out=1000.0, max_completion_tokens=1000, ceiling=3.0)
    attempts = range(10)
    for each in () if at_once else range(3):
        ask(wanted, each)
    with pytest.raises(CeilingReached, match="raise `ceiling`") as reached:
        ask(wanted, *attempts)
    assert "2.7 of 3 are spent" in str(reached.value)
    assert len(endpoint.requests) == 3, "what the next could cost is reserved, also while others are on the way"
    higher = wanted.model_copy(update={"ceiling": 100.0})
    assert len(ask(higher, *attempts)) == 10
    assert len(endpoint.requests) == 10, "nothing is paid for twice"


def test_commands_that_run_side_by_side_keep_one_ceiling(endpoint: Fake, script: list[Answer]) -> None:
    script[:] = [says("here", usage=(100, 900))]
    wanted = settings(endpoint, price_out=1000.0, max_completion_tokens=1000, ceiling=3.0)
    clients = [Client(wanted) for _ in range(3)]

    async def all_at_once() -> list[Reply | BaseException]:
        asked = [
            client.ask(ASKED, [], most=1000, attempt=10 * place + number, temperature=None)
            for place, client in enumerate(clients)
            for number in range(3)
        ]
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(all_at_once())
    for client in clients:
        client.close()
    assert len(endpoint.requests) == 3
    assert {type(each) for each in found} == {Reply, CeilingReached}
    assert Client(wanted).spent.money == pytest.approx(2.7)


def test_what_a_killed_command_had_reserved_is_free_again(endpoint: Fake, script: list[Answer]) -> None:
    script[:] = [says("here", usage=(100, 900))]
    wanted = settings(endpoint, max_completion_tokens=1000, ceiling_tokens=2000)
    killed = """
import os, signal
from pathlib import Path
from steptool.endpoints.ledger import Ledger
Ledger(Path("%s"), "%s", "teacher").reserve(1900, 0.0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", killed % (wanted.store, wanted.url)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [each.text for each in ask(wanted, 0)] == ["here"]


def test_a_ceiling_of_tokens_needs_no_prices(endpoint: Fake, script: list[Answer]) -> None:
    script[:] = [says("here", usage=(100, 900))]
    with pytest.raises(CeilingReached, match="raise `ceiling_tokens`"):
        ask(settings(endpoint, max_completion_tokens=1000, ceiling_tokens=2500), *range(5))
    assert len(endpoint.requests) == 2
    with pytest.raises(ValueError, match="price_in and price_out"):
        settings(endpoint, ceiling=1.0)


def test_requests_are_sent_evenly_repeated_ones_too(endpoint: Fake, script: list[Answer]) -> None:
    script[:] = [says("a"), Fault(500), says("b")]
    ask(settings(endpoint, requests_per_minute=600), 0, 1, 2, 3)
    assert len(endpoint.times) == 5
    gaps = [late - early for early, late in zip(endpoint.times, endpoint.times[1:], strict=False)]
    assert min(gaps) > 0.05, "a tenth of a second apart, give or take"


def test_a_store_that_is_none_is_named(endpoint: Fake) -> None:
    Path("broken.db").write_text("not a database, but long enough to be taken for one" * 100)
    with pytest.raises(DataError, match=r"mv broken.db broken.db.old"):
        Client(settings(endpoint, store="broken.db"))

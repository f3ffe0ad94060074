"""A world of a service's operations, called for real: a FastAPI service under uvicorn, that behaves well and badly."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steptool.core.errors import InputError, WorldError
from steptool.core.plugins import revision_of
from steptool.core.types import Observation, ToolCall
from steptool.rollouts.guard import GuardedSession
from steptool.worlds.checks import check_tasks
from steptool.worlds.openapi import OpenApiWorld
from steptool.worlds.openapi.document import Document
from steptool.worlds.openapi.reply import LONGEST
from steptool.worlds.openapi.toolbox import OpenApiToolbox
from tests.worlds.openapi_service import ELSEWHERE, app, serving

ALLOWED = ["createOrder", "PUT /parts", "dropOrder"]
SCHEMES = ("in_header", "in_query", "in_cookie", "bearer", "oauth")
SECRET = 'pa ss/"w&rd'


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(app) as address, serving(app) as other:
        ELSEWHERE[:] = [other + "/books/7"]
        yield address


@pytest.fixture(scope="module")
def toolbox(url: str) -> Iterator[OpenApiToolbox]:
    made = OpenApiToolbox(Document(json.dumps(app.openapi()), "openapi.json"), base_url=url, allow=ALLOWED)
    yield made
    made.close()
    made.close()


def call(toolbox: OpenApiToolbox, name: str, /, **arguments: Any) -> Observation:
    """On an event loop of its own, as each try of a stage has one."""
    return asyncio.run(toolbox.connect().call(ToolCall(name=name, arguments=arguments)))


def reply(toolbox: OpenApiToolbox, name: str, /, **arguments: Any) -> Any:
    observation = call(toolbox, name, **arguments)
    assert observation.error is None, observation
    return json.loads(observation.text)


def test_arguments_arrive_where_the_document_says(toolbox: OpenApiToolbox) -> None:
    arguments = {"id": "a b", "lang": "fr", "tag": ["x y", "z,&"], "x-trace": "t1", "visit": "v1"}
    assert reply(toolbox, "getBook", **arguments) == {
        "id": "a b",
        "lang": "fr",
        "tag": ["x y", "z,&"],
        "trace": "t1",
        "visit": "v1",
    }


def test_a_body_is_put_together_again(toolbox: OpenApiToolbox) -> None:
    made = reply(toolbox, "createOrder", id="7", id_body="8", lines=[{"title": "Dune", "count": 2}], gift=None)
    assert made == {"path": "7", "order": {"id": "8", "lines": [{"title": "Dune", "count": 2}], "gift": None}}
    tree = {"name": "a", "parts": [{"name": "b", "parts": [{"name": "c", "parts": []}]}]}
    assert reply(toolbox, "putPart", **tree) == tree
    assert reply(toolbox, "dropOrder", id="7") == {"status": 204}


def test_wrong_arguments_are_told_to_the_policy_and_never_sent(toolbox: OpenApiToolbox) -> None:
    wrong = call(toolbox, "createOrder", id="7", id_body="8", lines=[{"title": "Dune", "count": 0}])
    assert wrong.error == "invalid_argument"
    assert "lines.0.count: 0 is less than the minimum of 1" in wrong.text
    assert call(toolbox, "getBook", id="..").error == "invalid_argument"
    assert call(toolbox, "getBook", id="7", **{"x-trace": "a\r\nb"}).error == "invalid_argument"


def test_what_changes_something_is_known(toolbox: OpenApiToolbox) -> None:
    changing = [name for name in toolbox.tools if toolbox.changes_state(name)]
    assert sorted(changing) == ["createOrder", "dropOrder", "putPart"]


# Replies


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        ("500", "http_500", "oh no"),
        ("raise", "http_500", "Internal Server Error"),
        ("html", "html", '{"error": "200 OK, and a page of HTML instead of data: Sign in"}'),
        ("html502", "http_502", '{"error": "502 Bad Gateway, and a page of HTML instead of data: Bad gateway"}'),
        ("json", "invalid_json", '{"id": '),
        ("latin", None, "caf�"),
        ("charset", None, "café"),
        ("image", None, '{"status": 200, "body": "image/png, 2,048 bytes, not shown"}'),
        ("untyped", None, "plain"),
        ("empty", None, '{"status": 200}'),
        ("near", None, '{"id":"7","lang":"fr","tag":null,"trace":null,"visit":null}'),
        ("circle", "redirect", '{"error": "the service redirects more than 5 times"}'),
    ],
)
def test_replies_of_all_kinds(toolbox: OpenApiToolbox, kind: str, error: str | None, text: str) -> None:
    assert call(toolbox, "bad", kind=kind) == Observation(text=text, error=error)


def test_a_refusal_is_an_observation_with_its_status(toolbox: OpenApiToolbox) -> None:
    assert call(toolbox, "getBook", id="none") == Observation(
        text='{"detail":"no such book, use search"}', error="http_404"
    )


@pytest.mark.parametrize("kind", ["flood", "endless"])
def test_a_reply_without_end_is_cut_and_marked(toolbox: OpenApiToolbox, kind: str) -> None:
    """50 MB, or no end at all: no more than what is shown is read."""
    started = time.monotonic()
    seen = call(toolbox, "bad", kind=kind)
    assert time.monotonic() - started < 20
    assert seen.text.endswith(f" ... (cut: longer than {LONGEST:,} characters)")
    assert len(seen.text) < LONGEST + 100


def test_another_host_is_not_followed(toolbox: OpenApiToolbox) -> None:
    seen = call(toolbox, "bad", kind="away")
    assert seen.error == "redirect"
    assert "redirects to another one, 127.0.0.1" in seen.text


def test_a_reply_that_breaks_off_is_an_error(toolbox: OpenApiToolbox) -> None:
    assert call(toolbox, "bad", kind="cut").error == "broken_reply"


def test_attempts_share_no_cookies(toolbox: OpenApiToolbox) -> None:
    assert call(toolbox, "bad", kind="cookie").text == "set"
    assert reply(toolbox, "getBook", id="7")["visit"] is None


def test_a_service_that_hangs_costs_one_call(toolbox: OpenApiToolbox, world: OpenApiWorld) -> None:
    task = world.tasks("train")[0]
    session = GuardedSession(world.open(task, 0), timeout_s=0.5, most=100)

    async def attempt() -> list[Observation]:
        calls = [("bad", {"kind": "hang"}), ("getBook", {"id": "7"}), ("bad", {"kind": "flood"})]
        seen = [await session.call(ToolCall(name=name, arguments=arguments)) for name, arguments in calls]
        assert (await session.close("7")).solved == 1
        return seen

    hung, answered, flooded = asyncio.run(attempt())
    assert hung.error == "timeout"
    assert json.loads(answered.text)["id"] == "7"
    assert len(flooded.text) <= 103


def test_many_attempts_share_one_client(toolbox: OpenApiToolbox) -> None:
    async def all_at_once() -> list[Observation]:
        calls = [ToolCall(name="getBook", arguments={"id": str(number)}) for number in range(200)]
        return await asyncio.gather(*(toolbox.connect().call(each) for each in calls))

    assert [json.loads(seen.text)["id"] for seen in asyncio.run(all_at_once())] == [str(n) for n in range(200)]


def test_a_service_that_is_down_breaks_the_attempt() -> None:
    with serving(app) as address:
        made = OpenApiToolbox(Document(json.dumps(app.openapi()), "openapi.json"), base_url=address)
    with pytest.raises(WorldError, match="the service cannot be reached") as caught:
        call(made, "getBook", id="7")
    assert caught.value.where == address
    assert caught.value.fix == "start it, or set world.base_url"
    made.close()


# Secrets


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in SCHEMES:
        monkeypatch.setenv(f"STEPTOOL_AUTH_{scheme.upper()}", "token-of-" + scheme)
    monkeypatch.setenv("STEPTOOL_AUTH_BASIC", f"ann:{SECRET}")


@pytest.mark.parametrize(
    ("scheme", "where", "shown"),
    [
        ("in_header", ("headers", "x-key"), "[STEPTOOL_AUTH_IN_HEADER]"),
        ("in_query", ("query",), "key=[STEPTOOL_AUTH_IN_QUERY]"),
        ("in_cookie", ("headers", "cookie"), "key=[STEPTOOL_AUTH_IN_COOKIE]"),
        ("bearer", ("headers", "authorization"), "Bearer [STEPTOOL_AUTH_BEARER]"),
        ("oauth", ("headers", "authorization"), "Bearer [STEPTOOL_AUTH_OAUTH]"),
        ("basic", ("headers", "authorization"), "Basic [STEPTOOL_AUTH_BASIC]"),
    ],
)
@pytest.mark.usefixtures("secrets")
def test_each_scheme_signs_and_an_echo_shows_no_secret(
    toolbox: OpenApiToolbox, scheme: str, where: tuple[str, ...], shown: str
) -> None:
    """FastAPI refuses a call that is not signed as its document says."""
    seen = reply(toolbox, f"secret_{scheme}")
    for key in where:
        seen = seen[key]
    assert seen == shown


@pytest.mark.usefixtures("secrets")
def test_a_secret_is_hidden_however_it_is_written(toolbox: OpenApiToolbox) -> None:
    call(toolbox, "secret_basic")
    written = [SECRET, json.dumps(SECRET)[1:-1], "pa%20ss/%22w%26rd", "pa%20ss%2F%22w%26rd", "pa+ss%2F%22w%26rd"]
    for spelling in written:
        seen = call(toolbox, "getBook", id=f"<{spelling}>")
        assert seen.error == "http_404" or "STEPTOOL_AUTH_BASIC" in seen.text
        assert spelling not in seen.text


@pytest.mark.usefixtures("secrets")
def test_no_secret_is_logged(toolbox: OpenApiToolbox, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        for scheme in SCHEMES:
            call(toolbox, f"secret_{scheme}")
    assert "token-of-" not in caplog.text


def test_a_missing_secret_is_named_and_only_missed_by_a_call(toolbox: OpenApiToolbox) -> None:
    with pytest.raises(WorldError, match="STEPTOOL_AUTH_BEARER is not set") as caught:
        call(toolbox, "secret_bearer")
    assert caught.value.fix == "set STEPTOOL_AUTH_BEARER in the environment of the command"


@pytest.mark.parametrize("value", ["abc", "a token\n"])
def test_what_cannot_be_a_secret_is_refused_and_not_shown(
    toolbox: OpenApiToolbox, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("STEPTOOL_AUTH_BEARER", value)
    with pytest.raises(WorldError, match="less than 4 characters, or one that cannot be printed") as caught:
        call(toolbox, "secret_bearer")
    assert value not in str(caught.value)


def test_the_first_way_whose_variables_are_set_signs(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """a or (b and c) or nothing."""
    schemes = {name: {"type": "apiKey", "in": "header", "name": f"X-{name}"} for name in "abc"}
    schemes["odd"] = {"type": "mutualTLS"}
    security = [{"odd": []}, {"a": []}, {"b": [], "c": []}, {}]
    paths = {"/echo": {"get": {"operationId": "echo"}}}
    whole = {"openapi": "3.1.0", "paths": paths, "components": {"securitySchemes": schemes}, "security": security}
    toolbox = OpenApiToolbox(Document(json.dumps(whole), "a.json"), base_url=url, auth={"c": "MY_C"})

    def sent() -> set[str]:
        return {key for key in reply(toolbox, "echo")["headers"] if key.startswith("x-")}

    assert sent() == set()
    monkeypatch.setenv("MY_C", "secret of c")
    assert sent() == set()
    monkeypatch.setenv("STEPTOOL_AUTH_B", "secret of b")
    assert sent() == {"x-b", "x-c"}
    monkeypatch.setenv("STEPTOOL_AUTH_A", "secret of a")
    assert sent() == {"x-a"}
    toolbox.close()


def test_schemes_that_are_unknown_or_not_supported_are_refused() -> None:
    whole = {
        "openapi": "3.1.0",
        "servers": [{"url": "http://a.test"}],
        "paths": {"/a": {"get": {"security": [{"odd": []}]}}},
        "components": {"securitySchemes": {"odd": {"type": "mutualTLS"}}},
    }
    with pytest.raises(InputError, match="GET /a needs the security scheme 'odd', which is not supported"):
        OpenApiToolbox(Document(json.dumps(whole), "a.json"))
    with pytest.raises(InputError, match="has no security scheme 'even'") as caught:
        OpenApiToolbox(Document(json.dumps(whole), "a.json"), auth={"even": "X"})
    assert caught.value.fix == "use one of: odd"


# The world


@pytest.fixture
def world(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenApiWorld]:
    monkeypatch.chdir(tmp_path)
    made = OpenApiWorld(config(tmp_path, base_url=url), 17)
    yield made
    made.toolbox.close()


def config(folder: Path, **settings: Any) -> OpenApiWorld.Config:
    (folder / "openapi.json").write_text(json.dumps(app.openapi()))
    task = {"tools": ["getBook", "bad"], "check": {"kind": "text", "expected": "7"}}
    lines = [
        {"query": f"Which book is {number}?", "split": split, **task} for number, split in enumerate(["train", "test"])
    ]
    (folder / "tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return OpenApiWorld.Config(**settings)


def test_its_tasks_offer_the_operations(world: OpenApiWorld) -> None:
    splits = {split: world.tasks(split) for split in ("train", "dev", "test")}
    check_tasks(splits, {task.id: world.reference(task) for tasks in splits.values() for task in tasks}, "openapi")
    assert [tool.name for tool in splits["train"][0].tools] == ["getBook", "bad"]


def test_its_revision_is_that_of_document_and_settings_and_knows_no_secret(
    tmp_path: Path, world: OpenApiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = revision_of(world)
    monkeypatch.setenv("STEPTOOL_AUTH_BEARER", "another secret")
    assert revision_of(world) == first
    (tmp_path / "openapi.json").write_text(json.dumps({**app.openapi(), "info": {"title": "Others"}}))
    assert revision_of(world) != first


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"auth": {"bearer": "sk-secret"}}, "never write the secret itself"),
        ({"base_url": "books.test"}, "is an address, http"),
        ({"base_url": "http://ann:secret@books.test/v1"}, "holds a name or a password"),
        ({"document": "https://ann:secret@books.test/openapi.json"}, "holds a name or a password"),
        ({"document": "data/openapi.json"}, "lies where stages write"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(tmp_path, **settings)

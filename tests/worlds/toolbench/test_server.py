"""The virtual API server, as StableToolBench's clients ask it, on both layouts of the small folder (see `folders`)."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import uvicorn

from steptool.commands.serve_tools import _listening, _settings
from steptool.core.errors import InputError
from steptool.worlds.toolbench.desk import Desk
from steptool.worlds.toolbench.library import Library
from steptool.worlds.toolbench.server import MOST_BYTES, VirtualServer
from steptool.worlds.toolbench.simulator import Simulator
from tests.endpoints.fake import Fault, fake, says
from tests.worlds.toolbench.folders import CITY, DOWN, ONE, make_pack, make_stable, write

LAYOUTS = {"pack": make_pack, "stable": make_stable}
WANTED: dict[str, Any] = {
    "category": "Video, Images",
    "tool_name": "my_tool",
    "api_name": "find",
    "tool_input": {"key": "A 1"},
    "strip": "filter",
    "toolbench_key": "",
}


def desk(folder: Path, simulator: Simulator | None = None, nearest: float = 1.0) -> Desk:
    return Desk(Library(folder), folder.parent / "kept.db", nearest=nearest, simulator=simulator)


@contextmanager
def serving(answers: Desk) -> Iterator[str]:
    """The address of a server in a thread."""
    with _listening(0) as listener:
        config = uvicorn.Config(VirtualServer(answers), lifespan="off", log_level="critical", ws="none")
        server = uvicorn.Server(config)
        thread = Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)
            answers.close()


@pytest.fixture(params=LAYOUTS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    make: Callable[[Path], Path] = LAYOUTS[request.param]
    return make(tmp_path / "data")


def test_recorded_replies_are_served_as_clients_ask_for_them(folder: Path) -> None:
    cases: list[tuple[dict[str, Any], str, str | None]] = [
        ({}, ONE, "exact"),
        ({"tool_input": '{"key": "A 1"}'}, ONE, "exact"),
        ({"tool_input": '{"key": "a  1"}'}, ONE, "canonical"),
        ({"tool_input": {"key": "Berlim"}}, CITY, "nearest"),
        ({"tool_name": "my_tool_for_Video_Images", "category": "Video_Images"}, ONE, "exact"),
        ({"tool_name": "My Tool", "api_name": "Find"}, ONE, "exact"),
        ({"api_name": "find_for_my_tool"}, ONE, "exact"),
        ({"api_name": "Count All", "tool_input": ""}, DOWN, "exact"),
        ({"rapidapi_key": "more", "strip": ""}, ONE, "exact"),
        ({"tool_input": "{key: 1}"}, '{"error": "Tool input parse error...\\n", "response": ""}', None),
        ({"tool_input": "[1]"}, '{"error": "Tool input parse error...\\n", "response": ""}', None),
        ({"api_name": "chat_with_user"}, '{"error": "", "response": "Chat with user."}', None),
        ({"tool_input": {}}, '{"error": "no answer is known to this call", "response": ""}', "missing"),
    ]
    with serving(desk(folder, nearest=0.8)) as url, httpx.Client(timeout=60) as client:
        for changes, text, source in cases:
            response = client.post(f"{url}/virtual", json={**WANTED, **changes})
            assert (response.status_code, response.text) == (200, text), changes
            assert response.headers.get("x-reply-source") == source
        assert client.get(f"{url}/mix").json() == {"exact": 7, "canonical": 1, "nearest": 1, "missing": 1}


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "..", "a\x00", "x/../../..", "%2e%2e", ""])
@pytest.mark.parametrize("field", ["category", "tool_name", "api_name"])
def test_a_name_that_would_lead_out_of_the_folder_is_a_function_that_nobody_knows(
    name: str, field: str, tmp_path: Path
) -> None:
    folder = make_stable(tmp_path / "data")
    for place in (tmp_path / "secret.json", tmp_path / "data/server/secret.json"):
        write(place, {"{'key': 'A 1'}": {"error": "", "response": "secret"}})
    server, sent = VirtualServer(desk(folder)), []

    async def ask() -> None:
        body = json.dumps({**WANTED, field: name}).encode()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        await server({"method": "POST", "path": "/virtual"}, receive, send)

    asyncio.run(ask())
    assert sent[0]["status"] == 200
    assert b"secret" not in sent[1]["body"]
    assert b"no answer is known" in sent[1]["body"]


def test_what_is_no_request_is_refused_as_fastapi_refuses_it(tmp_path: Path) -> None:
    with serving(desk(make_pack(tmp_path / "data"))) as url, httpx.Client(timeout=60) as client:
        without = client.post(f"{url}/virtual", json={**WANTED, "category": None})
        assert without.status_code == 422
        assert without.json()["detail"][0]["loc"] == ["body", "category"]
        for body in (b"{", b"[" * 100_000, b'{"category": "\\ud800"}', b"\xff", b""):
            assert client.post(f"{url}/virtual", content=body).status_code == 422
        assert client.post(f"{url}/virtual", content=b" " * (MOST_BYTES + 1)).status_code == 413
        assert client.post(f"{url}/other", json=WANTED).status_code == 404
        assert client.get(f"{url}/virtual").status_code == 405
        assert client.post(f"{url}/virtual", json=WANTED).status_code == 200, "it goes on"


@pytest.mark.parametrize("headers", [{"Origin": "https://a.example"}, {"Host": "a.example:8080"}, {"Origin": "null"}])
def test_a_page_in_a_browser_is_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    with serving(desk(make_pack(tmp_path / "data"))) as url, httpx.Client(timeout=60) as client:
        assert client.post(f"{url}/virtual", json=WANTED, headers=headers).status_code == 403
        assert client.get(f"{url}/mix", headers=headers).status_code == 403
        assert client.get(f"{url}/mix", headers={"Host": "localhost:1"}).json() == {}


def test_a_fault_behind_the_server_is_a_500_with_its_reason(tmp_path: Path) -> None:
    folder = make_stable(tmp_path / "data")
    next(folder.rglob("count_all.json")).write_text("{]")
    with fake(lambda request: Fault(status=400, body="{}")) as endpoint:
        settings = {"url": endpoint.url, "model": "m", "store": str(tmp_path / "e.db"), "max_retries": 0}
        with serving(desk(folder, Simulator(_settings(settings)))) as url, httpx.Client(timeout=60) as client:
            broken = client.post(f"{url}/virtual", json={**WANTED, "api_name": "count_all"})
            assert (broken.status_code, "count_all.json" in broken.text) == (500, True)
            assert client.post(f"{url}/virtual", json={**WANTED, "tool_input": {}}).status_code == 500
            unknown = client.post(f"{url}/virtual", json={**WANTED, "api_name": "search"})
            assert unknown.json()["error"] == "no such function: search_for_my_tool"


def test_settings_of_a_simulator_that_are_wrong_are_named() -> None:
    with pytest.raises(InputError, match="model"):
        _settings({"url": "http://localhost:1/v1"})


def test_identical_misses_at_the_same_time_ask_the_simulator_once(tmp_path: Path) -> None:
    folder = make_pack(tmp_path / "data")
    with fake(lambda request: says('{"error": "", "response": "new"}')) as endpoint:
        settings = {"url": endpoint.url, "model": "m", "store": str(tmp_path / "e.db")}
        with serving(desk(folder, Simulator(_settings(settings)))) as url:

            async def many() -> list[httpx.Response]:
                async with httpx.AsyncClient(timeout=60) as client:
                    body = {**WANTED, "tool_input": {"key": "X"}}
                    return await asyncio.gather(*(client.post(f"{url}/virtual", json=body) for _ in range(16)))

            replies = asyncio.run(many())
            assert {reply.text for reply in replies} == {'{"error": "", "response": "new"}'}
            assert {reply.headers["x-reply-source"] for reply in replies} == {"simulated"}
        assert len(endpoint.requests) == 1

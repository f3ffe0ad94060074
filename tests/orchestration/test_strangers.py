"""What a stranger gets from the servers that we start: a page of another origin, another host name, nobody's password.

    server                what it would change                     what it would read
    serve: prefect        a flow                                   the flows
    serve: mlflow         an experiment                            the experiments
    services: prefect     a flow                                   the flows
    services: mlflow      an experiment                            the experiments
    services: store       an object                                an object
    services: postgres    (speaks no HTTP)                         its databases

A flow stands for everything in Prefect, where a deployment's `job_variables.command` is run by the worker.
"""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import botocore.exceptions
import psycopg2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from steptool.orchestration.services.servers import HOST, USER
from steptool.orchestration.services.team import PORTS, Services
from tests.orchestration.serving import Serving, lay_out, serving
from tests.orchestration.test_services import needs_postgres, store_client
from tests.registry.conftest import empty_database  # noqa: F401  a fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), needs_postgres]
WORD = "a-word-that-only-friends-read"
SHADY = {
    "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": "*",
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "*",
    "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "*",
}
"""What somebody's shell may hold from another project: it opens none of our servers."""


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    body: bytes = b""


@dataclass(frozen=True)
class Target:
    port: int
    password: str
    read: Asked
    change: Asked

    def ask(self, asked: Asked, *, friend: bool = False, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
        if friend:
            sent["Authorization"] = "Basic " + b64encode(self.password.encode()).decode()
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        try:
            connection.request(asked.method, asked.path, asked.body, sent)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()


def prefect_target(port: int, password: str) -> Target:
    read = Asked("POST", "/api/flows/filter", b"{}")
    return Target(port, password, read, Asked("POST", "/api/flows/", b'{"name": "strange"}'))


def mlflow_target(port: int, password: str) -> Target:
    base = "/api/2.0/mlflow/experiments"
    body = b'{"name": "strange"}'
    return Target(
        port, f"{USER}:{password}", Asked("GET", f"{base}/search?max_results=9"), Asked("POST", f"{base}/create", body)
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Serving]:  # noqa: F811
    with serving(lay_out(tmp_path_factory.mktemp("checkout"), empty_database), **SHADY) as running:
        yield running


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SHADY.items():
            patch.setenv(name, value)
        running = Services(tmp_path_factory.mktemp("services"), durable=False, ports=dict.fromkeys(PORTS, 0))
        try:
            running.start_all()
            yield running
        finally:
            running.stop_all()


@pytest.fixture(scope="module")
def targets(served: Serving, services: Services) -> dict[str, Target]:
    own, team = served.environment(), services.environment()
    found = {
        "serve: prefect": prefect_target(served.prefect_port, own["PREFECT_API_AUTH_STRING"]),
        "serve: mlflow": mlflow_target(served.mlflow_port, own["MLFLOW_TRACKING_PASSWORD"]),
        "services: prefect": prefect_target(services.ports["prefect"], team["PREFECT_API_AUTH_STRING"]),
        "services: mlflow": mlflow_target(services.ports["mlflow"], team["MLFLOW_TRACKING_PASSWORD"]),
        "services: store": Target(
            services.ports["store"], "", Asked("GET", "/dvc/word"), Asked("PUT", "/dvc/strange", b"strange")
        ),
    }
    for name, target in found.items():
        if "store" in name:
            store_client(services).put_object(Bucket="dvc", Key="word", Body=WORD.encode())
        else:
            body = target.change.body.replace(b"strange", WORD.encode())
            assert target.ask(Asked("POST", target.change.path, body), friend=True)[0] in (200, 201), name
    return found


def seen_by_a_friend(name: str, target: Target, services: Services) -> bytes:
    """All that a friend finds there."""
    if "store" in name:
        client = store_client(services)
        keys = [found["Key"] for found in client.list_objects_v2(Bucket="dvc")["Contents"]]
        return b" ".join([*map(str.encode, keys), client.get_object(Bucket="dvc", Key="word")["Body"].read()])
    return target.ask(target.read, friend=True)[2]


NAMES = ["serve: prefect", "serve: mlflow", "services: prefect", "services: mlflow", "services: store"]
EVIL, NEIGHBOUR = "http://evil.example", f"http://{HOST}:1"
STRANGERS: dict[str, dict[str, str]] = {
    "no password": {},
    "a wrong password": {"Authorization": "Basic " + b64encode(b"steptool:password").decode()},
    "an empty password": {"Authorization": "Basic " + b64encode(b"steptool:").decode()},
    "a key of another store": {
        "Authorization": f"AWS4-HMAC-SHA256 Credential={USER}/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, "
        "Signature=" + 64 * "0",
        "X-Amz-Date": "20260101T000000Z",
    },
    "half a signature": {"Authorization": f"AWS4-HMAC-SHA256 Credential={USER}"},
    "a page of another site": {"Origin": EVIL},
    "a page on another port": {"Origin": NEIGHBOUR},
    "a page of no origin": {"Origin": "null"},
    "a page without a preflight": {"Origin": EVIL, "Content-Type": "text/plain"},
    "a name that was pointed here": {"Host": "evil.example", "Origin": EVIL},
    "a name that begins as an address": {"Host": "10.evil.example"},
    "a Host that is none": {"Host": "["},
}


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("name", NAMES)
def test_strangers_read_and_change_nothing(
    name: str, stranger: str, targets: dict[str, Target], services: Services
) -> None:
    target = targets[name]
    for asked in (target.read, target.change, Asked("DELETE", target.read.path), Asked("OPTIONS", target.read.path)):
        try:
            status, headers, body = target.ask(asked, **STRANGERS[stranger])
        except (http.client.HTTPException, OSError) as fault:
            pytest.fail(f"{asked}: {fault!r}, which is no answer")
        assert WORD.encode() not in body
        assert 400 <= status < 500 or asked.method == "OPTIONS", (asked, status)
        assert headers["Access-Control-Allow-Origin"] not in ("*", EVIL, "null"), asked
    seen = seen_by_a_friend(name, target, services)
    assert WORD.encode() in seen
    assert b"strange" not in seen


@pytest.mark.parametrize("origin", [EVIL, NEIGHBOUR, "null"])
@pytest.mark.parametrize("name", NAMES)
def test_browser_is_told_not_to_send_what_a_page_of_another_origin_asks(
    name: str, origin: str, targets: dict[str, Target]
) -> None:
    if (name.endswith("mlflow"), origin) == (True, NEIGHBOUR):
        pytest.skip("MLflow trusts pages of its own machine; see steptool/orchestration/services/protected.py")
    preflight = Asked("OPTIONS", targets[name].change.path)
    asks = {"Access_Control_Request_Method": targets[name].change.method}
    _, headers, _ = targets[name].ask(
        preflight, Origin=origin, **asks, Access_Control_Request_Headers="authorization,content-type"
    )
    assert headers["Access-Control-Allow-Origin"] in (None, ""), dict(headers)


SOCKETS = (
    "events/in",
    "events/out",
    "logs/out",
    "task_runs/subscriptions/scheduled",
    "work_pools/cpu/workers/connect",
)


def say(port: int, path: str, message: dict[str, str], *protocols: str) -> str | bytes:
    """The answer, to a page of another origin. A web socket has no preflight: such a page may open one."""
    address = f"ws://{HOST}:{port}/api/{path}"
    with connect(address, origin=EVIL, subprotocols=list(protocols) or None) as channel:  # type: ignore[arg-type]
        channel.send(json.dumps(message))
        return channel.recv(timeout=20)


@pytest.mark.parametrize("path", SOCKETS)
@pytest.mark.parametrize("name", ["serve: prefect", "services: prefect"])
def test_web_socket_of_a_stranger_is_closed(name: str, path: str, targets: dict[str, Target]) -> None:
    port = targets[name].port
    for hello in ({"type": "auth"}, {"type": "auth", "token": "steptool:"}, {"type": "filter"}):
        with pytest.raises(ConnectionClosed):
            say(port, path, hello, "prefect")
    with pytest.raises((ConnectionClosed, InvalidStatus)):
        say(port, path, {"event": "steptool.data.new"})


def test_friends_open_prefects_web_sockets(targets: dict[str, Target]) -> None:
    target = targets["serve: prefect"]
    with connect(f"ws://{HOST}:{target.port}/api/events/in", subprotocols=["prefect"]) as channel:  # type: ignore[list-item]
        channel.send(json.dumps({"type": "auth", "token": target.password}))
        assert json.loads(channel.recv(timeout=20)) == {"type": "auth_success"}


def test_store_does_what_its_key_signs_and_nothing_else(services: Services, targets: dict[str, Target]) -> None:
    friend, key = store_client(services), "a folder/with ~odd+names=%25&ümlaut.bin"
    large = b"x" * (9 << 20)
    friend.put_object(Bucket="dvc", Key=key, Body=large)
    assert friend.get_object(Bucket="dvc", Key=key)["Body"].read() == large
    assert [found["Key"] for found in friend.list_objects_v2(Bucket="dvc", Prefix="a folder/")["Contents"]] == [key]
    friend.delete_object(Bucket="dvc", Key=key)
    stranger = store_client(services, "another secret")
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        stranger.list_objects_v2(Bucket="dvc")
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        stranger.put_object(Bucket="dvc", Key="strange", Body=b"")


@pytest.mark.parametrize("password", [None, "", "steptool"])
def test_postgres_lets_nobody_in_without_the_password(services: Services, password: str | None) -> None:
    port = services.ports["postgres"]
    for database in ("postgres", "prefect"):
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(host=HOST, port=port, user=USER, password=password, dbname=database)


def test_postgres_does_not_speak_with_browsers(services: Services) -> None:
    with socket.create_connection((HOST, services.ports["postgres"]), timeout=20) as raw:
        raw.sendall(b"POST / HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n")
        with suppress(ConnectionResetError):
            assert raw.recv(100) == b""


# With a real browser

PAGE = """<!doctype html><title>another origin</title><body><script>
const told = [];
const note = (what, how) => { told.push(what + "=" + how); document.body.innerText = told.join(" "); };
(async () => {
  for (const [name, target] of Object.entries(TARGETS)) {
    for (const [what, asked] of Object.entries(target.asked)) {
      const url = "http://127.0.0.1:" + target.port + asked.path;
      const own = {method: asked.method, headers: {"Content-Type": "application/json"}};
      if (asked.body) own.body = asked.body;
      try { const r = await fetch(url, own); note(name + "/" + what, r.ok ? "READ:" + await r.text() : r.status); }
      catch (fault) { note(name + "/" + what, "refused"); }
      try { await fetch(url, {method: "POST", mode: "no-cors", body: asked.body || ""}); } catch (fault) {}
    }
  }
  note("all", "done");
  await fetch("/done");
})();
</script>"""


def browser() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return found or pytest.skip("needs chromium")


def test_page_in_a_real_browser_gets_nothing(targets: dict[str, Target], services: Services, tmp_path: Path) -> None:
    """A page on another port asks all of them for everything, with and without a preflight."""
    program = browser()
    table = {
        name: {
            "port": target.port,
            "asked": {
                what: {"method": asked.method, "path": asked.path, "body": asked.body.decode()}
                for what, asked in {"read": target.read, "change": target.change}.items()
            },
        }
        for name, target in targets.items()
    }
    page = PAGE.replace("TARGETS", json.dumps(table)).encode()
    is_done = threading.Event()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/done":
                is_done.set()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *values: object) -> None:
            return

    server = ThreadingHTTPServer((HOST, 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--timeout=60000")
    address = f"http://{HOST}:{server.server_address[1]}/"
    try:
        said = subprocess.run(
            [program, *options, "--virtual-time-budget=60000", "--dump-dom", address],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    finally:
        server.shutdown()
    assert is_done.is_set(), said.stderr[-500:]
    assert "all=done" in said.stdout
    assert "READ:" not in said.stdout, said.stdout
    assert WORD not in said.stdout
    for name, target in targets.items():
        assert b"strange" not in seen_by_a_friend(name, target, services), name


@pytest.mark.parametrize(
    "command", [("steptool.cli", "approvals"), ("steptool.cli", "deploy"), ("prefect", "deployment", "ls")]
)
def test_what_the_user_types_works_after_sourcing_the_file(served: Serving, command: tuple[str, ...]) -> None:
    assert served.type(*command)
    assert not any(served.environment()["PREFECT_API_AUTH_STRING"] in line for line in served.said)

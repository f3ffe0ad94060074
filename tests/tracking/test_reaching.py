"""MLflow as people run it: behind a private certificate, behind a proxy, and as a server that is none.

    stage ──→ forward proxy (HTTP_PROXY, HTTPS_PROXY) ──→ TLS with a certificate of one's own ──→ MLflow

The servers are real ones on loopback. What reaches them is MLflow's own client.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from steptool import doctor
from steptool.core.errors import InputError, StepToolError, TrackingError
from steptool.tracking import client
from steptool.tracking.client import connect

EXPERIMENT = {"experiment": {"experiment_id": "7", "name": "test", "lifecycle_stage": "active"}}
EXPERIMENT["experiment"]["tags"] = [{"key": "mlflow.experimentKind", "value": "custom_model_development"}]


class Mlflow(BaseHTTPRequestHandler):
    """As much of MLflow as a first connection asks for."""

    answer: ClassVar[tuple[int, bytes, dict[str, str]]]
    seen: ClassVar[list[str | None]]

    def do_GET(self) -> None:  # and nothing is ever created
        self.seen.append(self.headers.get("Authorization"))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body, headers = self.answer
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Proxy(BaseHTTPRequestHandler):
    """A forward proxy. Whatever host is asked for, the request goes to the port that it names on loopback."""

    asked: ClassVar[list[str]]
    password: ClassVar[str | None]

    def _refuses(self) -> bool:
        self.asked.append(self.path)
        if self.password is None or self.headers.get("Proxy-Authorization"):
            return False
        self.send_response(407)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return True

    def do_GET(self) -> None:
        if self._refuses():
            return
        parts = urlsplit(self.path)
        with socket.create_connection(("127.0.0.1", parts.port or 80)) as server:
            server.sendall(f"GET {parts.path}?{parts.query} HTTP/1.0\r\nHost: x\r\n\r\n".replace("? ", " ").encode())
            while block := server.recv(4096):
                self.wfile.write(block)
        self.close_connection = True

    def do_CONNECT(self) -> None:
        if self._refuses():
            return
        with socket.create_connection(("127.0.0.1", int(self.path.rpartition(":")[2]))) as server:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: server, server: self.connection}
            while True:
                for one in select.select(list(ends), [], [])[0]:
                    block = one.recv(65536)
                    if not block:
                        self.close_connection = True
                        return
                    ends[one].sendall(block)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up is the case
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_port
        server.shutdown()


def mlflow(answer: tuple[int, bytes, dict[str, str]] | None = None) -> type[Mlflow]:
    whole = (200, json.dumps(EXPERIMENT).encode(), {"Content-Type": "application/json"})
    return type("Served", (Mlflow,), {"answer": answer or whole, "seen": []})


def proxy(password: str | None = None) -> type[Proxy]:
    return type("Forward", (Proxy,), {"asked": [], "password": password})


def certificate(folder: Path, name: str, signed_by: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None):
    """Write `name`.pem, the certificate and its key, and return both."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    authority, signer = signed_by or (None, key)
    names = x509.SubjectAlternativeName([x509.DNSName("mlflow.example"), x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(names, critical=False)
        .sign(signer, hashes.SHA256())
    )
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM) + encoded)
    return made, key


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """authority.pem signs server.pem and client.pem; other.pem signs nothing."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = certificate(folder, "authority")
    certificate(folder, "server", authority)
    certificate(folder, "client", authority)
    certificate(folder, "other")
    return folder


@pytest.fixture
def tls(certificates: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem")
    return context


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def reached(uri: str) -> bool:
    """Whether a stage would reach MLflow at `uri`; `steptool doctor` says the same."""
    try:
        assert connect(uri, "test")[1] == "7"
    except TrackingError:
        assert not doctor.tracking(uri).ok
        return False
    assert doctor.tracking(uri).ok
    return True


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("MLFLOW_TRACKING_INSECURE_TLS", "true", True),
        ("MLFLOW_TRACKING_SERVER_CERT_PATH", "authority.pem", True),
        ("REQUESTS_CA_BUNDLE", "authority.pem", True),
        ("MLFLOW_TRACKING_SERVER_CERT_PATH", "other.pem", False),
        ("REQUESTS_CA_BUNDLE", "other.pem", False),
        ("MLFLOW_TRACKING_INSECURE_TLS", "false", False),
    ],
)
def test_server_behind_a_private_certificate_is_reached_as_mlflow_reaches_it(
    setting: str, value: str, expected: bool, certificates: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(setting, str(certificates / value) if value.endswith(".pem") else value)
    with serving(mlflow(), tls) as port:
        assert reached(f"https://127.0.0.1:{port}") is expected


def test_server_that_asks_for_a_certificate_of_the_client_gets_it(
    certificates: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(certificates / "authority.pem")
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificates / "authority.pem"))
    with serving(mlflow(), tls) as port:
        assert not reached(f"https://127.0.0.1:{port}")
        monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(certificates / "client.pem"))
        assert reached(f"https://127.0.0.1:{port}")


def test_fix_for_a_certificate_that_nobody_knows_works(
    certificates: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(mlflow(), tls) as port:
        with pytest.raises(TrackingError, match="certificate verify failed") as caught:
            connect(f"https://127.0.0.1:{port}", "test")
        assert (caught.value.fix or "").startswith("set MLFLOW_TRACKING_SERVER_CERT_PATH")
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificates / "authority.pem"))
        assert reached(f"https://127.0.0.1:{port}")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_server_that_only_the_proxy_can_reach_is_reached(
    scheme: str, certificates: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = proxy()
    with serving(mlflow(), tls if scheme == "https" else None) as port, serving(forward) as between:
        uri = f"{scheme}://mlflow.example:{port}"
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificates / "authority.pem"))
        monkeypatch.setenv(f"{scheme}_proxy", f"http://127.0.0.1:{between}")
        assert reached(uri)
        assert forward.asked
        monkeypatch.setenv("no_proxy", "mlflow.example")
        assert not reached(uri)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_that_wants_a_password_gets_it_and_nobody_else_sees_it(
    scheme: str, certificates: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificates / "authority.pem"))
    served = mlflow()
    with serving(served, tls if scheme == "https" else None) as port, serving(proxy("s3cret")) as between:
        uri = f"{scheme}://mlflow.example:{port}"
        monkeypatch.setenv(f"{scheme}_proxy", f"http://me:s3cret@127.0.0.1:{between}")
        assert reached(uri)
        assert set(served.seen) == {None}
        monkeypatch.setenv(f"{scheme}_proxy", f"http://127.0.0.1:{between}")
        assert not reached(uri)


def test_proxy_that_is_down_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:s3cret@127.0.0.1:1")
    with pytest.raises(TrackingError) as caught:
        connect("http://mlflow.example:5000", "test")
    assert "HTTP_PROXY" in (caught.value.fix or "")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("where", ["address", "password", "token"])
def test_redirect_to_another_host_takes_no_credentials_along(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first server sends every request on to a second, of another host name, which must not see the password."""
    user = ""
    if where == "address":
        user = "me:s3cret@"
    elif where == "password":
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret")
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cret")
    second = mlflow()
    with serving(second) as elsewhere:
        first = mlflow((307, b"", {"Location": f"http://localhost:{elsewhere}/api/2.0/mlflow/experiments/get-by-name"}))
        with serving(first) as port:
            assert connect(f"http://{user}127.0.0.1:{port}", "test")[1] == "7"
    assert all(first.seen)
    assert second.seen
    assert not any(second.seen)


def test_server_that_is_down_while_a_stage_fails_is_told_by_its_own_error() -> None:
    uri = "http://127.0.0.1:1"
    try:
        raise ValueError("the stage's own")
    except ValueError:
        with pytest.raises(TrackingError, match="Connection refused"), client.mlflow_errors(uri, "log"):
            requests.get(uri, timeout=3)


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql+psycopg2://h:port/db",
        "postgresql://[h/db",
        "http://h:99999",
        "http:///x",
        "sqlite://",
        "sqlite+pysqlite:/",
    ],
)
def test_address_that_is_none_is_an_error_of_the_input(uri: str) -> None:
    with pytest.raises(InputError, match="not the address") as caught:
        connect(uri, "test")
    assert caught.value.exit_code == 2


DEEP = b"[" * 100_000
PAGE = b"<!doctype html><title>\x1b]0;owned\x07Sign in</title>" + b"x" * 5000


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, PAGE),
        (200, b""),
        (200, b"null"),
        (200, b"[]"),
        (200, b'"text"'),
        (200, b"{}"),
        (200, b'{"experiment": 5}'),
        (200, b'{"experiment": {"experiment_id": []}}'),
        (200, b'{"experiment": {"lifecycle_stage": "a'),
        (200, b'{"experiment": {"creation_time": NaN}}'),
        (200, b"\xff\xfe\x00"),
        (200, DEEP),
        (200, b'{"a":' + DEEP + b"}"),
        (400, b'{"error_code": 5}'),
        (400, b'{"error_code": "NEW_IN_MLFLOW_9", "message": "no"}'),
        (401, PAGE),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "not yours"}'),
        (404, PAGE),
        (418, b"[1]"),
        (500, PAGE),
        (500, b"{}"),
    ],
)
def test_server_that_is_no_mlflow_is_one_error_and_changes_nothing(status: int, body: bytes) -> None:
    with serving(mlflow((status, body, {}))) as port:
        started = time.monotonic()
        with pytest.raises(TrackingError) as caught:
            connect(f"http://127.0.0.1:{port}", "test")
    assert time.monotonic() - started < 10
    said = str(caught.value)
    assert len(said) < 700
    assert said.replace("\n", "").isprintable()
    if status in (401, 403):
        assert "MLFLOW_TRACKING_PASSWORD" in (caught.value.fix or "")


@pytest.mark.parametrize("password", ["a/b", "a#b", "a?b", "a@b", "a[b]", "a:b", "a%b", "ü ", "%2F"])
def test_password_written_as_the_fix_says_reaches_the_server(password: str) -> None:
    from base64 import b64decode
    from urllib.parse import quote

    served = mlflow()
    with serving(served) as port:
        assert connect(f"http://me:{quote(password, safe='')}@127.0.0.1:{port}", "test")[1] == "7"
        assert {b64decode(str(seen).split()[1]).decode(errors="replace") for seen in served.seen}
        if any(character in password for character in "/#?[") and "%" not in password:
            with pytest.raises(StepToolError) as caught:
                connect(f"http://me:{password}@127.0.0.1:{port}", "test")
            assert caught.value.exit_code == 2
            assert "%2F" in (caught.value.fix or "")


def test_answers_that_come_slowly_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    served = mlflow()
    answer: Callable[[Mlflow], None] = served.do_GET

    def slowly(self: Mlflow) -> None:
        time.sleep(0.5)  # a server that stores somebody's model meanwhile
        answer(self)

    assert client.PROBE_TIMEOUT_S[1] >= 10
    monkeypatch.setattr(client, "PROBE_TIMEOUT_S", (0.3, 5))
    monkeypatch.setattr(served, "do_GET", slowly)
    with serving(served) as port:
        assert connect(f"http://127.0.0.1:{port}", "test")[1] == "7"

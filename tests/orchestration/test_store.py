"""The store's check of signatures, with the client that DVC and MLflow use."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from steptool.orchestration.services.store import SignedHandler

KEY = "the key"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "dvc").mkdir()
    (tmp_path / "dvc" / "kept").write_bytes(b"kept")
    handler = type("Handler", (SignedHandler,), {"key": KEY, "data_root": tmp_path})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def client(port: int, key: str = KEY) -> Any:
    own = {"aws_access_key_id": "steptool", "aws_secret_access_key": key, "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **own)


@pytest.mark.parametrize("name", ["plain", "in a folder/with ~odd+names=%25&;@:,é.bin", "ä/ö"])
def test_what_the_key_signs_is_done(port: int, name: str) -> None:
    friend = client(port)
    friend.put_object(Bucket="dvc", Key=name, Body=b"text")
    assert friend.get_object(Bucket="dvc", Key=name, Range="bytes=1-2")["Body"].read() == b"ex"
    assert [found["Key"] for found in friend.list_objects_v2(Bucket="dvc", Prefix=name)["Contents"]] == [name]
    friend.delete_object(Bucket="dvc", Key=name)


def test_another_key_opens_nothing(port: int) -> None:
    stranger = client(port, "another key")
    with pytest.raises(ClientError, match="AccessDenied"):
        stranger.get_object(Bucket="dvc", Key="kept")
    with pytest.raises(ClientError, match="AccessDenied"):
        stranger.put_object(Bucket="dvc", Key="strange", Body=b"")


def ask(port: int, method: str, path: str, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def signed(port: int, method: str = "GET", path: str = "/dvc/kept") -> dict[str, str]:
    request = AWSRequest(method, f"http://127.0.0.1:{port}{path}", {"Host": f"127.0.0.1:{port}"})
    S3SigV4Auth(Credentials("steptool", KEY), "s3", "us-east-1").add_auth(request)
    return dict(request.headers.items())


def test_signature_is_good_for_what_was_signed_alone(port: int) -> None:
    good = signed(port)
    assert ask(port, "GET", "/dvc/kept", good) == 200
    assert ask(port, "DELETE", "/dvc/kept", good) == 403
    assert ask(port, "GET", "/dvc/other", good) == 403
    assert ask(port, "GET", "/dvc/kept?tagging", good) == 403
    assert ask(port, "GET", "/dvc/kept", good | {"Host": "evil.example"}) == 403
    assert ask(port, "GET", "/dvc/kept", good | {"X-Amz-Date": "20300101T000000Z"}) == 403


def presigned(port: int, key: str = KEY, seconds: int = 60) -> str:
    """The path and the query of an address as MLflow gives it to a client."""
    own = {"aws_access_key_id": "steptool", "aws_secret_access_key": key, "region_name": "us-east-1"}
    address = f"http://127.0.0.1:{port}"
    made = boto3.client("s3", endpoint_url=address, config=Config(signature_version="s3v4"), **own)
    named = {"Bucket": "dvc", "Key": "kept", "ResponseContentType": "text/plain"}
    found: str = made.generate_presigned_url("get_object", Params=named, ExpiresIn=seconds)
    return found.removeprefix(address)


def test_signed_address_reads_one_object_until_it_expires(port: int) -> None:
    host = {"Host": f"127.0.0.1:{port}"}
    good = presigned(port)
    assert ask(port, "GET", good, host) == 200
    assert ask(port, "GET", good, host | {"Range": "bytes=0-1"}) == 206
    assert ask(port, "DELETE", good, host) == 403
    assert ask(port, "PUT", good, host) == 403
    assert ask(port, "GET", good.replace("kept", "other"), host) == 403
    assert ask(port, "GET", good.replace("text%2Fplain", "text%2Fhtml"), host) == 403
    assert ask(port, "GET", good.replace("X-Amz-Expires=60", "X-Amz-Expires=600000"), host) == 403
    assert ask(port, "GET", good, {"Host": "evil.example"}) == 403
    assert ask(port, "GET", presigned(port, "another key"), host) == 403
    late = presigned(port, seconds=1)
    time.sleep(1.1)
    assert ask(port, "GET", late, host) == 403


@pytest.mark.parametrize("name", ["Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature"])
@pytest.mark.parametrize("value", ["", "x", "9" * 5000, "20269999T999999Z", "é%FF"])
def test_signed_address_that_was_changed_is_refused(port: int, name: str, value: str) -> None:
    address = re.sub(rf"X-Amz-{name}=[^&]*", f"X-Amz-{name}={quote(value)}", presigned(port))
    assert ask(port, "GET", address, {"Host": f"127.0.0.1:{port}"}) == 403


@pytest.mark.parametrize(
    "change",
    [
        {"Authorization": ""},
        {"Authorization": "Basic c3RlcHRvb2w6"},
        {"Authorization": "AWS4-HMAC-SHA256 Credential=, SignedHeaders=, Signature="},
        {"Authorization": "AWS4-HMAC-SHA256 " + "a" * 50_000},
        {"X-Amz-Date": ""},
        {"X-Amz-Date": "yesterday"},
        {"Host": "["},
    ],
)
def test_what_is_no_signature_is_refused_and_not_a_fault(port: int, change: dict[str, str]) -> None:
    for path in ("/dvc/kept", "/", "[", "http://[/", "/%00", "//"):
        for method in ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"):
            assert ask(port, method, path, signed(port) | change) == 403, (method, path)

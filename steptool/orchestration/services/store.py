"""localbucket behind S3's own check of keys.

    python -m steptool.orchestration.services.store FOLDER --host 127.0.0.1 --port 9000

The key is in AWS_SECRET_ACCESS_KEY.

localbucket alone takes every request, and lets web pages of every origin read the answer. Here each request must carry
a signature made with the key (AWS Signature Version 4), which a page does not have: in its Authorization header, or in
its address, which then is good until it expires; MLflow gives such addresses to those who may read an artifact.

The signature covers the method, the Host, the path and the query, and the body through its hash. That the body has this
hash is not checked, nor is the age of a header: who can read and change what runs over the loopback of this machine
needs no forged request.
"""

from __future__ import annotations

import hmac
import os
import re
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl

import localbucket
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

ALGORITHM = "AWS4-HMAC-SHA256"
_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Credential=(?P<scope>[^,]+), *SignedHeaders=(?P<headers>[^,]+), *Signature=(?P<signature>[0-9a-f]+)"
)
_SCOPE = re.compile(r"[^/]+/\d{8}/(?P<region>[^/]+)/s3/aws4_request")
_REFUSAL = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>AccessDenied</Code><Message>The request is not signed with the key of this store.</Message></Error>"""


class Claim(NamedTuple):
    """What a request says of its signature."""

    signer: type[S3SigV4Auth | S3SigV4QueryAuth]
    scope: str
    date: str
    headers: list[str]
    """Names of those that are signed."""
    signature: str
    path: str
    """With the query, as it was signed."""


class SignedHandler(localbucket.S3Handler):
    """Refuses what is not signed with `key`, whatever the method, before anything else is done with it."""

    key: str

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        if self._is_signed():
            return True
        del self.headers["Origin"]  # localbucket would let the page read its answer
        self.close_connection = True  # its body is not read
        self._send(
            HTTPStatus.FORBIDDEN,
            _REFUSAL,
            {"Content-Type": "application/xml", "Connection": "close"},
            include_body=self.command != "HEAD",
        )
        return False

    def _is_signed(self) -> bool:
        claim = self._in_header() if "Authorization" in self.headers else self._in_address()
        scope = _SCOPE.fullmatch(claim.scope) if claim else None
        if claim is None or scope is None or "host" not in claim.headers or not claim.path.startswith("/"):
            return False
        headers = {name: self.headers.get(name, "") for name in claim.headers}
        request = AWSRequest(self.command, f"http://store{claim.path}", headers)  # the Host is among the headers
        request.context["timestamp"] = claim.date
        signer = claim.signer(Credentials("", self.key), "s3", scope["region"])
        signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        return hmac.compare_digest(signature.encode(), claim.signature.encode())

    def _in_header(self) -> Claim | None:
        found = _AUTHORIZATION.fullmatch(self.headers["Authorization"])
        if found is None:
            return None
        names = found["headers"].split(";")
        return Claim(
            S3SigV4Auth, found["scope"], self.headers.get("X-Amz-Date", ""), names, found["signature"], self.path
        )

    def _in_address(self) -> Claim | None:
        path, _, query = self.path.partition("?")
        said = dict(parse_qsl(query))
        date, lifetime = said.get("X-Amz-Date", ""), said.get("X-Amz-Expires", "")
        if said.get("X-Amz-Algorithm") != ALGORITHM or _has_expired(date, lifetime):
            return None
        signed = "&".join(part for part in query.split("&") if not part.startswith("X-Amz-Signature="))
        names = said.get("X-Amz-SignedHeaders", "").split(";")
        scope, signature = said.get("X-Amz-Credential", ""), said.get("X-Amz-Signature", "")
        return Claim(S3SigV4QueryAuth, scope, date, names, signature, f"{path}?{signed}")


def _has_expired(date: str, lifetime: str) -> bool:
    """Whether `lifetime` seconds have passed since `date`, or one of the two is malformed."""
    if not re.fullmatch(r"[0-9]{1,6}", lifetime):
        return True
    try:
        made = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return True
    return datetime.now(UTC) >= made + timedelta(seconds=int(lifetime))


if __name__ == "__main__":
    SignedHandler.key = os.environ["AWS_SECRET_ACCESS_KEY"]
    localbucket.S3Handler = SignedHandler
    localbucket.main()

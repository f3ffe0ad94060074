"""localbucket behind S3's own check of keys.

    python -m flows.store FOLDER --host 127.0.0.1 --port 9000       the key is in AWS_SECRET_ACCESS_KEY

localbucket alone takes every request, and lets web pages of every origin read the answer. Here each request must carry
a signature (AWS Signature Version 4, in its Authorization header) made with the key, which a page does not have. The
signature covers the method, the Host, the path and the query. It covers the body through its hash; that the body has
this hash is not checked, nor is the age of a signature: who can read and change what runs over the loopback of this
machine needs no forged request.
"""

from __future__ import annotations

import hmac
import os
import re
from http import HTTPStatus

import localbucket
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^/,]+/\d{8}/(?P<region>[^/,]+)/s3/aws4_request, *"
    r"SignedHeaders=(?P<headers>[^,]+), *Signature=(?P<signature>[0-9a-f]{64})"
)
_REFUSAL = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>AccessDenied</Code><Message>The request is not signed with the key of this store.</Message></Error>"""


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
        found = _AUTHORIZATION.fullmatch(self.headers.get("Authorization", ""))
        date = self.headers.get("X-Amz-Date", "")
        names = found["headers"].split(";") if found else []
        is_whole = re.fullmatch(r"\d{8}T\d{6}Z", date) and "host" in names and self.path.startswith("/")
        if found is None or not is_whole:
            return False
        headers = {name: self.headers.get(name, "") for name in names}
        request = AWSRequest(self.command, f"http://store{self.path}", headers)  # the Host is among the headers
        request.context["timestamp"] = date
        signer = S3SigV4Auth(Credentials("", self.key), "s3", found["region"])
        signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        return hmac.compare_digest(signature, found["signature"])


if __name__ == "__main__":
    SignedHandler.key = os.environ["AWS_SECRET_ACCESS_KEY"]
    localbucket.S3Handler = SignedHandler
    localbucket.main()

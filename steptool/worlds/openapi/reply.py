"""From what a service replies to an observation.

2xx           its body; `{"status": 204}` where it has none
4xx           its body, error http_404
5xx           its body, error http_500
HTML, binary  said, not shown; HTML is an error
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from http import HTTPStatus

import httpx

from steptool.core.types import Observation
from steptool.worlds.project.session import failure

LONGEST = 1024 * 1024
"""Characters of a reply that are shown."""
MORE = 16 * 1024
"""Bytes that are read of the rest, so that no part of a secret stands at the cut."""
TEXTUAL = re.compile(
    r"text/.*|application/(.*\+)?(json|xml|yaml|x-yaml|javascript|x-ndjson|x-www-form-urlencoded|graphql.*)", re.I
)


async def observation_of(response: httpx.Response, hide: Callable[[str], str]) -> Observation:
    """Of a response that is being streamed. `hide` takes secrets out of a text."""
    status = response.status_code
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    error = f"http_{status}" if status >= 400 else None
    if kind and not TEXTUAL.fullmatch(kind):
        size = response.headers.get("content-length", "")
        length = f", {int(size):,} bytes" if size.isdecimal() else ""
        return Observation(text=json.dumps({"status": status, "body": f"{kind}{length}, not shown"}), error=error)
    text = hide(await _read(response))
    if kind in ("text/html", "application/xhtml+xml"):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.I | re.S)
        said = f": {' '.join(title[1].split())[:100]}" if title else ""
        return failure(error or "html", f"{_phrase(status)}, and a page of HTML instead of data{said}")
    if len(text) > LONGEST:
        return Observation(text=f"{text[:LONGEST]} ... (cut: longer than {LONGEST:,} characters)", error=error)
    if not text:
        return failure(error, _phrase(status)) if error else Observation(text=json.dumps({"status": status}))
    if error is None and kind.endswith("json") and not _is_json(text):
        error = "invalid_json"
    return Observation(text=text, error=error)


async def _read(response: httpx.Response) -> str:
    """The text, up to a bit more than LONGEST. What is no text in its encoding is replaced."""
    body = bytearray()
    async for part in response.aiter_bytes(64 * 1024):
        body += part
        if len(body) > LONGEST + MORE:
            break
    try:
        return bytes(body).decode(response.charset_encoding or "utf-8", "replace")
    except LookupError:  # no encoding that Python knows
        return bytes(body).decode("utf-8", "replace")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _phrase(status: int) -> str:
    known = {each.value: each.phrase for each in HTTPStatus}
    return f"{status} {known.get(status, '')}".strip()

"""No password and no token in what is shown, logged or kept.

    public(uri)          an address fit for a message, a log and a file
    redact(text, uri)    any text, such as an error of MLflow, that may quote the address in a spelling of its own

Both take whatever a user may have typed, valid or not, and never raise. What may be a secret is hidden.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "***"
SHORT = 4
"""A secret of fewer characters is hidden only where it stands alone: a password `a` is no reason to hide every a."""

SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|TOKEN|SECRET|SECRET_KEY|ACCESS_KEY|API_KEY|AUTH_STRING)$", re.IGNORECASE)
ADDRESS_NAME = re.compile(r"(_PROXY|_URI|_URL)$", re.IGNORECASE)
"""Environment variables that hold a secret, or an address that may hold one."""

SCHEME = re.compile(r"[A-Za-z][\w+.-]*://")
ADDRESS = re.compile(rf"{SCHEME.pattern}[^\s'\"<>]*[^\s'\"<>.,;:!?)\]]")
OPAQUE_PORT = re.compile(r"^(\[[^\]/]*\]|(?!\[)[^/:]*):(?!\d*(?:/|$)).*", re.DOTALL)
"""What follows a host and a colon and is no port, as in `http://user:password` whose host was forgotten."""

REQUESTS_SAFE = "!#$%&'()*+,/:;=?@[]~"
"""The characters that requests leaves as they are in an address."""


def public(uri: str) -> str:
    """`uri` without user name and password, and without what follows `?` or `#`.

    A password may hold any character, unquoted too, so all before the last `@` counts as user name and password.
    """
    shown, _ = _parted(uri)
    return shown


def redact(text: str, *uris: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` without the secrets of `uris` and of the environment, however they are spelt in it, and without those of
    any other address in it."""
    for uri in sorted(filter(None, uris), key=len, reverse=True):
        text = text.replace(uri, public(uri))
    if pattern := _pattern(_secrets(uris, environ)):
        text = pattern.sub(HIDDEN, text)
    return ADDRESS.sub(lambda found: public(found[0]), text)


def _parted(uri: str) -> tuple[str, list[str]]:
    """What may be shown of `uri`, and what may not."""
    found = SCHEME.match(uri)
    scheme = found[0] if found else ""
    rest = uri.removeprefix(scheme)
    if rest.startswith(("/", "./", "../")):  # a path has no user, and `?` begins the options of SQLite
        path, mark, options = rest.partition("?") if scheme.startswith("sqlite") else (rest, "", "")
        return scheme + path + (mark and f"?{HIDDEN}"), [options]
    user, _, place = rest.rpartition("@")
    if re.search(r"[?#]", user):  # the `@` belongs to the password or to the query, who knows
        return scheme + HIDDEN, [user, place]
    place, *query = re.split(r"[?#]", place, maxsplit=1)
    hosted = OPAQUE_PORT.sub(rf"\1:{HIDDEN}", place)
    hidden = [user, *query, *([place.partition(":")[2]] if hosted != place else [])]
    return scheme + hosted + (f"?{HIDDEN}" if query else ""), hidden


def _secrets(uris: Iterable[str], environ: Mapping[str, str]) -> Iterator[str]:
    addresses = [*uris, *(value for name, value in environ.items() if ADDRESS_NAME.search(name))]
    for hidden in (part for uri in addresses for part in _parted(uri)[1]):
        user, _, password = hidden.partition(":")
        yield from (hidden, user, password)
        # A parser that a password misleads quotes the piece that it took for a host or a port.
        pieces = re.split(r"\W+", hidden) + re.split(r"\W+", unquote(hidden))
        yield from (piece for piece in pieces if len(piece) >= SHORT)
        yield _basic(unquote(user), unquote(password))
    for name, value in environ.items():
        if SECRET_NAME.search(name) and len(value) >= SHORT:
            yield value
    if known := environ.get("MLFLOW_TRACKING_PASSWORD"):
        yield known
        yield _basic(environ.get("MLFLOW_TRACKING_USERNAME", ""), known)


def _basic(user: str, password: str) -> str:
    """What the header of HTTP basic authentication holds."""
    return base64.b64encode(f"{user}:{password}".encode(errors="surrogatepass")).decode()


def _pattern(secrets: Iterable[str]) -> re.Pattern[str] | None:
    spellings = {spelling for secret in secrets for spelling in _spellings(secret) if spelling.strip(":@/ ")}
    if not spellings:
        return None
    longest_first = sorted(spellings, key=lambda spelling: (-len(spelling), spelling))
    return re.compile("|".join(map(_matching, longest_first)), re.IGNORECASE)  # a host is written in lower case


def _matching(spelling: str) -> str:
    exact = re.escape(spelling)
    return exact if len(spelling) >= SHORT else rf"(?<!\w){exact}(?!\w)"


def _spellings(secret: str) -> Iterator[str]:
    """As typed, decoded, percent-encoded in the usual ways, and each of them in the quotes of Python and JSON."""
    for plain in {secret, unquote(secret), unquote_plus(secret)}:
        encoded = plain.encode(errors="surrogatepass")
        quoted = {quote(encoded, safe=safe) for safe in ("", "/", REQUESTS_SAFE)}
        for spelling in {plain, quote_plus(encoded)} | quoted:
            yield spelling
            yield repr(spelling)[1:-1]
            yield json.dumps(spelling)[1:-1]

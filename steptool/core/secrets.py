"""Secrets from environment variables, and how they are kept out of everything that is shown, stored or learnt from.

params.yaml names the variables and never holds a secret, so revisions and recordings cannot either. What comes from
outside (a reply that echoes its request, the error of a library, what a server prints) passes `hide` first.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Annotated
from urllib.parse import quote, quote_plus, urlsplit

from pydantic import AfterValidator

from steptool.core.errors import WorldError, in_short
from steptool.core.fields import Text

SHORTEST = 4
"""Characters of a secret. A shorter one cannot be told apart from other text in a reply."""


def _variable(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w{0,99}", text, re.ASCII):
        raise ValueError("name an environment variable that holds the secret; never write the secret itself")
    return text


Variable = Annotated[str, AfterValidator(_variable)]
"""Name of an environment variable."""


def plain_address(text: str) -> str:
    """`text`. Raises ValueError where it is no address of the web, or one that holds a secret."""
    if not text.startswith(("http://", "https://")):
        raise ValueError(f"is an address, http://… or https://…, got {text[:80]!r}")
    if "@" in text.split("/")[2]:
        raise ValueError("holds a name or a password; keep it in an environment variable")
    try:
        parts = urlsplit(text)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise ValueError(f"is no address: {error}") from None
    if not is_whole:
        raise ValueError(f"is an address, http://… or https://…, got {text[:80]!r}")
    return text


Address = Annotated[Text, AfterValidator(plain_address)]
"""Where a service is, without secrets."""


def _beginning(text: str) -> str:
    if "?" in text or "#" in text:
        raise ValueError("is what addresses begin with, so it ends before any ? or #")
    return text.rstrip("/")


Beginning = Annotated[Address, AfterValidator(_beginning)]
"""What the addresses of a service begin with, without / at its end."""


SECRET_NAME = re.compile("KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
LONG_ENOUGH = 8
"""Characters of a value, or of a line of it, that is hidden because of its variable's name."""


class Secrets:
    """The secrets that are in use, each with the name of its variable."""

    def __init__(self) -> None:
        self._hidden: dict[str, str] = {}

    def add(self, variable: str, values: Iterable[str]) -> None:
        """`values`: all that must not be seen of what the variable holds, such as its password alone."""
        for value in values:
            for written in _spellings(value):
                self._hidden[written] = f"[{variable}]"

    def read(self, variable: str, what: str) -> str:
        """The value of an environment variable, a secret from now on. Raises WorldError, which never shows it, where it
        is none.

        `what` says what needs it.
        """
        value = os.environ.get(variable, "")
        fix = f"set {variable} in the environment of the command"
        if not value:
            raise WorldError(f"{variable} is not set", where=what, fix=fix)
        if len(value) < SHORTEST or not value.isprintable():
            found = f"{variable} holds less than {SHORTEST} characters, or one that cannot be printed"
            raise WorldError(found, where=what, fix=fix)
        self.add(variable, [value])
        return value

    def hide(self, text: str) -> str:
        """`text` with the name of the variable in place of each secret, as it is or as JSON or an address has it."""
        for written in sorted(self._hidden, key=len, reverse=True):
            text = text.replace(written, self._hidden[written])
        return text

    def add_environment(self, environment: Mapping[str, str]) -> None:
        """Those of the variables whose names look like secrets."""
        for variable, value in environment.items():
            if SECRET_NAME.search(variable):
                self.add(variable, [each for each in (value, *value.splitlines()) if len(each) >= LONG_ENOUGH])

    @property
    def longest(self) -> int:
        """Bytes of the longest text that is hidden."""
        return max((len(written.encode("utf-8", "surrogateescape")) for written in self._hidden), default=0)

    def reason(self, error: BaseException) -> str:
        """What an exception of a library says, as `core.errors.reason` has it. A secret that is cut would not be found,
        so it is hidden before.
        """
        return in_short(self.hide(str(error))) or type(error).__name__

    def reason_and_cause(self, error: BaseException) -> str:
        """The same with what it was raised from: a lost connection says little by itself."""
        return " ".join(self.reason(each) for each in (error, error.__cause__) if each is not None)


def _spellings(value: str) -> set[str]:
    how = "surrogateescape"  # a variable may hold what is no UTF-8
    found = {value, quote(value, errors=how), quote(value, safe="", errors=how), quote_plus(value, errors=how)}
    return found | {json.dumps(value, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}

"""Keeps personal data and secrets out of what is imported: before anything is written, counted or shown.

    anna@example.org                person-kdmwqzbx@redacted.invalid
    +1 415 555 2671                 +9 990 813 4407        no country has the code 999; what stands between digits stays
    sk-proj-…, AKIA…, PEM, JWT      redacted-key-pzkvhwtd
    a field named by --drop         redacted-rmfbqxhj; of a number another of as many digits

The same value has the same stand-in everywhere in a project, so that an id still leads from one call to the next. It is
derived with a key of the project (`.steptool/scrub.key`), without which nobody can tell what a stand-in is of. What was
found by the name of its field or as a key is replaced wherever else the conversation says it.

What has no shape of its own, such as the name of a person in prose, is not found: name its fields with --drop.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections import Counter
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import Any

from steptool.core.errors import DataError, StorageError
from steptool.traces.conversation import Conversation
from steptool.traces.patterns import (
    EMAIL,
    HINT,
    KEYED,
    KEYS,
    LONG_WORD,
    PHONE_FIELD,
    SECRET_FIELDS,
    field_in_text,
    keys_of_services,
    phones,
    plain_name,
)
from steptool.traces.texts import NotReplaced, Texts

KEY = Path(".steptool/scrub.key")
"""Of a project: its own, readable by its user alone, and not in Git."""
SHORTEST_KEY = 16
"""Bytes of it."""
EMAILS, PHONES, SECRETS, DROPPED = "e-mail addresses", "phone numbers", "keys and passwords", "dropped fields"
SHORTEST_KNOWN = 3
"""Characters of a dropped value or a key that is looked for in the rest of the conversation."""
_LETTERS, _LENGTH = "bcdfghjkmnpqrstvwxyz", 8
"""Of stand-ins: they spell no words, and hold no digits that could be taken for a number."""
_STAND_IN = re.compile(rf"(?:person|redacted|redacted-key)-[{_LETTERS}]{{{_LENGTH}}}(?:(?:@|%40)redacted\.invalid)?")


def project_key(path: Path = KEY) -> bytes:
    """The key of the project in the working directory; made where there is none.

    Raises DataError where the file holds none, StorageError where it cannot be read or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = path.read_text(encoding="ascii").strip()
        else:
            _ignore(path.parent / ".gitignore")
            key = secrets.token_hex(32)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(f"{key}\n")
        found = bytes.fromhex(key)
    except OSError as error:
        fix = "make it readable and its folder writable, then run the same command again"
        raise StorageError(f"cannot be read or made: {error.strerror}", where=str(path), fix=fix) from error
    except ValueError:  # no ASCII, no hexadecimal digits
        found = b""
    if len(found) < SHORTEST_KEY:
        fix = "restore it, or remove it: what is imported then gets other stand-ins than before"
        raise DataError("holds no key", where=str(path), fix=fix)
    return found


def _ignore(path: Path) -> None:
    """Keep a folder out of Git, where it says nothing of its own about that."""
    if not path.exists():
        path.write_text("*\n", encoding="ascii")


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(?:\.\d+)?", text) is not None


class Scrubber:
    """`key`: of the project. `drop`: names of fields in arguments and replies, at any depth. `region`: country, by its
    two letters, whose phone numbers are written without +."""

    def __init__(self, key: bytes, drop: Iterable[str] = (), region: str = "US") -> None:
        self.counts: Counter[str] = Counter()
        """Occurrences by what they were."""
        self._key, self._region = key, region
        self._drop = {plain: name for name in drop if (plain := plain_name(name))}
        self._dropped_names: set[str] = set()
        """Of these, the ones that were found."""
        self._field_in_text = field_in_text(self._drop) if self._drop else None
        self._known: dict[str, tuple[str, str]] = {}
        """Of the conversation at hand: the stand-in and the kind of each value that may stand elsewhere, casefolded."""
        self._spellings: set[str] = set()
        """Of these values."""

    @property
    def never_found(self) -> list[str]:
        """The fields of `drop` that nothing had so far."""
        return [name for plain, name in self._drop.items() if plain not in self._dropped_names]

    def text(self, text: str) -> str:
        """Of any text, such as a place or an error."""
        return Texts(self._without_shapes, self._without_field).text(text)

    def conversation(self, of: Conversation) -> Conversation:
        self._known, self._spellings = {}, set()
        scrubbed = Texts(self._without_shapes, self._without_field).conversation(of)
        if self._known:
            known = sorted(self._spellings, key=len, reverse=True)
            pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, known))})(?!\w)", re.IGNORECASE)
            again = Texts(lambda text: pattern.sub(self._stand_in_of_known, text), on_number=self._number_of_known)
            scrubbed = again.conversation(scrubbed)
        return scrubbed

    def _stand_in_of_known(self, found: re.Match[str]) -> str:
        unlike = (f"redacted-{self._letters(DROPPED, found[0])}", DROPPED)  # whose letters fold in no way of its own
        stand_in, kind = self._known.get(found[0].casefold(), unlike)
        self.counts[kind] += 1
        return stand_in

    def _number_of_known(self, value: float) -> float:
        stand_in, kind = self._known.get(str(value), ("", ""))
        if not _is_number(stand_in):
            return value
        self.counts[kind] += 1
        return type(value)(stand_in)

    def _without_shapes(self, text: str) -> str:
        if self._field_in_text:
            text = self._field_in_text.sub(self._dropped_in_text, text)
        if HINT.search(text):
            for pattern in KEYED:
                text = pattern.sub(lambda found: found["before"] + self._secret(found["secret"]) + found["after"], text)
        if LONG_WORD.search(text):
            for pattern in (*KEYS, *keys_of_services()):
                text = pattern.sub(lambda found: self._secret(found[0]), text)
        if "@" in text or "%40" in text:
            text = EMAIL.sub(self._email, text)
        return self._without_phones(text)

    def _without_field(self, name: str, value: Any) -> Any:
        plain = plain_name(name)
        if plain in self._drop:
            self._dropped_names.add(plain)
            return self._dropped(value)
        if plain in SECRET_FIELDS and not isinstance(value, dict):
            return self._hidden(value)
        if PHONE_FIELD.search(plain) and isinstance(value, str | int) and not isinstance(value, bool):
            return type(value)(self._without_phones(self._without_shapes(str(value)), is_field=True))
        raise NotReplaced

    def _dropped(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._dropped(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._dropped(item) for item in value]
        if isinstance(value, bool) or value is None or value == "":
            return value
        written = str(value)
        if isinstance(value, str):
            is_done = _STAND_IN.fullmatch(value)
            return value if is_done else self._noted(value, f"redacted-{self._letters(DROPPED, value)}", DROPPED)
        stand_in = self._digits_as(written, DROPPED, written) if _is_number(written) else "0"
        return type(value)(self._noted(written, stand_in, DROPPED))

    def _dropped_in_text(self, found: re.Match[str]) -> str:
        value = found["value"]
        self._dropped_names.add(plain_name(found["before"]))
        if found["quote"]:
            return f"{found['before']}{self._dropped(value)}"
        return f"{found['before']}{self._noted(value, self._digits_as(value, DROPPED, value), DROPPED)}"

    def _hidden(self, value: Any) -> Any:
        """The value of a field that is called like a secret; a list that holds objects is walked through."""
        if isinstance(value, list):
            if any(isinstance(item, dict) for item in value):
                raise NotReplaced
            return [self._hidden(item) for item in value]
        if isinstance(value, str) and value.strip():
            return self._secret(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return int(self._noted(str(value), self._digits_as(str(value), SECRETS, str(value)), SECRETS))
        return value

    def _secret(self, value: str) -> str:
        if _STAND_IN.fullmatch(value):
            return value
        return self._noted(value, f"redacted-key-{self._letters(SECRETS, value)}", SECRETS)

    def _email(self, found: re.Match[str]) -> str:
        if _STAND_IN.fullmatch(found[0]) or _STAND_IN.fullmatch(found[0][: found.start("at") - found.start()]):
            return found[0]  # the latter where a password stood before the @ of a URL
        self.counts[EMAILS] += 1
        return f"person-{self._letters(EMAILS, found[0].replace('%40', '@'))}{found['at']}redacted.invalid"

    def _without_phones(self, text: str, *, is_field: bool = False) -> str:
        parts, end = [], 0
        for start, stop, number in phones(text, self._region, is_field=is_field):
            written = text[start:stop]
            stand_in = self._noted(written, self._digits_as(written, PHONES, number, begin="9990"), PHONES)
            parts += [text[end:start], stand_in]
            end = stop
        return "".join(parts) + text[end:]

    # Stand-ins

    def _noted(self, value: str, stand_in: str, kind: str) -> str:
        self.counts[kind] += 1
        if len(value.strip()) >= SHORTEST_KNOWN:
            self._known[value.strip().casefold()] = (stand_in, kind)
            self._spellings |= {value.strip(), value.strip().casefold()}
        return stand_in

    def _letters(self, kind: str, value: str) -> str:
        number, found = self._number(kind, value), ""
        for _ in range(_LENGTH):
            number, index = divmod(number, len(_LETTERS))
            found += _LETTERS[index]
        return found

    def _digits_as(self, written: str, kind: str, value: str, begin: str = "") -> str:
        """`written` with other digits, derived from `value`; the first ones are `begin`, and never a leading 0."""
        number = self._number(kind, value)
        digits = cycle(begin + str(number % 9 + 1) + str(number // 9))
        return "".join(next(digits) if c.isdecimal() else c for c in written)

    def _number(self, kind: str, value: str) -> int:
        said = f"{kind}\0{value.strip().casefold()}".encode(errors="surrogatepass")
        return int.from_bytes(hmac.new(self._key, said, hashlib.sha256).digest(), "big")

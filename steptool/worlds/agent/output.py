"""What a program prints, of which only so much is kept."""

from __future__ import annotations

from steptool.core.secrets import Secrets


class Kept:
    """The beginning and the end, together at most `most` bytes."""

    def __init__(self, most: int) -> None:
        self._half = most // 2
        self._first = self._last = b""
        self._total = 0

    def add(self, data: bytes) -> None:
        self._total += len(data)
        room = self._half - len(self._first)
        self._first += data[:room]
        self._last = (self._last + data[room:])[-self._half :]

    def __bytes__(self) -> bytes:
        left_out = self._total - len(self._first) - len(self._last)
        between = f"\n... (cut: {left_out} of {self._total} bytes)\n".encode() if left_out else b""
        return self._first + between + self._last

    def without(self, secrets: Secrets) -> Kept:
        """It without the secrets. Where it is cut, so much more is left out that no part of a secret remains."""
        found = Kept(2 * self._half)
        if self._total == len(self._first) + len(self._last):
            found._first = _hidden(self._first + self._last, secrets)
            found._total = len(found._first)
            return found
        first, last = _hidden(self._first, secrets), _hidden(self._last, secrets)
        found._first, found._last = first[: max(0, len(first) - secrets.longest)], last[secrets.longest :]
        found._total = self._total
        return found

    @property
    def last_line(self) -> str:
        """The last line that is not empty."""
        text = (self._first[-self._half :] + self._last).decode("utf-8", "replace")
        return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _hidden(data: bytes, secrets: Secrets) -> bytes:
    return secrets.hide(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

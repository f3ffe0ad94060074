"""What a program prints, of which only so much is kept."""

from __future__ import annotations


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

    @property
    def last_line(self) -> str:
        """The last line that is not empty."""
        text = (self._first[-self._half :] + self._last).decode("utf-8", "replace")
        return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")

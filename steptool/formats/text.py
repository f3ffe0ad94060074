"""Text from outside, as a policy may be shown it: valid Unicode, and not too long."""

from __future__ import annotations


def valid_text(text: str) -> str:
    """Half surrogate pairs, which JSON can smuggle in and UTF-8 cannot hold, become `?`."""
    return text.encode("utf-8", "replace").decode()


def shorten(text: str, most: int) -> str:
    """Valid text of at most `most` characters; what is longer is cut there and ends in `...`, as in ToolBench.

    To shorten the result again changes nothing.
    """
    return valid_text(text if len(text) <= most else text[:most] + "...")

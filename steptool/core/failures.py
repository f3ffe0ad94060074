"""What kind of failure a tool's reply tells of, where nothing but its text is at hand.

The gateway reads the replies that an agent sends with it, and imported traces the replies that were recorded: OpenAI's
tool messages have no field for it. It is conservative: a reply that merely mentions an error is none.

    {"error": "no such book"}                     tool_error
    {"error": "unknown_id"}                       unknown_id         an identifier is taken as the kind
    {"error": {"type": "rate_limit", …}}          rate_limit
    {"status": "error", …}   {"status": 404}      tool_error
    {"is_error": true, …}    {"success": false}   tool_error
    Error: …   ERROR …   Failed to …              tool_error
    Traceback (most recent call last): …          the exception in its last line
    ValueError: …                                 ValueError
    Event not found.   Board not valid. Choose …  tool_error         a short reply that begins by refusing the call
    {"error": null}   {"errors": []}              None
    There were no errors.   No events found.      None               an empty result is none
"""

from __future__ import annotations

import json
import re
from typing import Any

TOOL_ERROR = "tool_error"
"""A failure without a kind of its own."""
_FAILING_KEYS = ("error", "errors", "exception")
_NO_ERROR = ("", "none", "null", "no", "false", "ok", "0")
_FAILING_STATUS = ("error", "failed", "failure")
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[_.\-][A-Za-z0-9]+)*", re.ASCII)
_LONGEST_KIND = 40
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*([A-Z]\w*(?:Error|Exception))(?::|\s*$)", re.ASCII)
_PLAIN = re.compile(
    r"ERROR\b|(?i:(?:error|exception|failure)\b\s*(?:[:\-!(\[]|\d|$)"
    r"|error (?:calling|executing|while|in|occurred)\b|failed to\b)"
)
_REFUSAL = re.compile(
    r"(?:.{1,80}\b(?:not found|not provided|(?:is )?not valid|(?:is )?invalid|does not exist|doesn't exist)"
    r"|.{0,80}\b(?:permission|access) denied|.{1,80}\bis not a valid \w+"
    r"|.{0,40}\b(?:argument|parameter|field|value)s?\b.{0,40}\b(?:is|are) required"
    r"|.{1,80}\bmust be (?:one of|an? )\b.*|(?:no such|unable to)\b.{1,80}"
    r"|(?:invalid|missing|unknown) (?:\S+ ){0,3}(?:argument|parameter|field|value|id|key|name|tool|function|address"
    r"|date|email|format|input|request|type|user|credentials|details|token)s?\b.{0,80})",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[.:;,!](?:\s|$)|\n")
_LONGEST_REFUSAL = 1000
"""Characters; what is longer tells something."""
_TRACEBACK = "Traceback (most recent call last)"


def error_of(text: str) -> str | None:
    """The kind of failure that a reply tells of, or None where it tells of none."""
    text = text.strip()
    if text.startswith('"') and text.endswith('"'):
        text = text[1:-1].strip()
    if text.startswith("{"):
        try:
            return _error_in(json.loads(text))
        except (ValueError, RecursionError):
            return None
    if text.startswith(_TRACEBACK):
        last = _EXCEPTION.match(text.rpartition("\n")[2].strip())
        return last[1] if last else TOOL_ERROR
    if found := _EXCEPTION.match(text):
        return found[1]
    refuses = len(text) <= _LONGEST_REFUSAL and _REFUSAL.fullmatch(_SENTENCE.split(text, maxsplit=1)[0])
    return TOOL_ERROR if _PLAIN.match(text) or refuses else None


def _error_in(reply: dict[str, Any]) -> str | None:
    for key in _FAILING_KEYS:
        value = reply.get(key)
        if isinstance(value, str) and value.strip().casefold() in _NO_ERROR:
            continue
        if value:
            return _kind_of(value)
    if reply.get("is_error") is True or reply.get("isError") is True:
        return TOOL_ERROR
    if any(reply.get(key) is False for key in ("success", "ok")):
        return TOOL_ERROR
    for key in ("status", "status_code"):
        status = reply.get(key)
        if isinstance(status, str) and status.casefold() in _FAILING_STATUS:
            return TOOL_ERROR
        if isinstance(status, int) and not isinstance(status, bool) and 400 <= status < 600:
            return TOOL_ERROR
    return None


def _kind_of(value: Any) -> str:
    """`unknown_id`, or what an object of an error calls its type; else there is no kind."""
    if isinstance(value, dict):
        value = next((value[key] for key in ("type", "code", "kind") if isinstance(value.get(key), str)), None)
    is_name = isinstance(value, str) and len(value) <= _LONGEST_KIND and "_" in value and _KIND.fullmatch(value)
    return str(value) if is_name else TOOL_ERROR

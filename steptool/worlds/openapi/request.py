"""From the arguments of a call to a request, as the styles of OpenAPI's parameters write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from steptool.worlds.openapi.operations import Argument, Operation

SEPARATORS = {"spaceDelimited": "%20", "pipeDelimited": "%7C"}
"""Between the items of a list in a query; else a comma."""


class WrongRequest(Exception):
    """Arguments that cannot stand in a request. The message is for the policy."""


@dataclass
class Parts:
    """What a request is made of, all of it encoded."""

    url: str
    query: list[str] = field(default_factory=list)
    """`key=value` each."""
    headers: dict[str, str] = field(default_factory=dict)
    cookies: list[str] = field(default_factory=list)
    """`key=value` each."""
    body: dict[str, Any] = field(default_factory=dict)
    """Arguments of `httpx.Request`: `content` or `files`."""

    def add_query(self, key: str, value: str) -> None:
        self.query.append(f"{_quoted(key)}={_quoted(value)}")

    def add_cookie(self, key: str, value: str) -> None:
        self.cookies.append(f"{_quoted(key)}={_quoted(value)}")

    @property
    def address(self) -> str:
        return f"{self.url}?{'&'.join(self.query)}" if self.query else self.url

    @property
    def all_headers(self) -> dict[str, str]:
        return self.headers | ({"Cookie": "; ".join(self.cookies)} if self.cookies else {})


def request_of(operation: Operation, arguments: Mapping[str, Any]) -> Parts:
    """The request of a call. An argument that is null is left out, but in a body.

    Raises WrongRequest for a value that would lead to another path, or that no header can hold.
    """
    given = [(argument, arguments[argument.name]) for argument in operation.arguments if argument.name in arguments]
    path = operation.path
    for argument, value in given:
        if argument.place == "path":
            path = path.replace(f"{{{argument.key}}}", _in_path(argument, value))
    steps = zip(operation.path.split("/"), path.split("/"), strict=True)
    if any(step in (".", "..") or (template and not step) for template, step in steps):
        raise WrongRequest(f"arguments of the path must not be empty, '.' or '..', got {path[:100]!r}")
    parts = Parts(operation.server.rstrip("/") + path)
    for argument, value in given:
        if value is None and argument.place != "body":
            continue
        if argument.place == "query":
            parts.query += _in_query(argument, value)
        elif argument.place == "header":
            parts.headers[argument.key] = _in_header(argument, value)
        elif argument.place == "cookie":
            parts.cookies += _in_query(argument, value)
    if operation.content_type is not None:
        body = {argument.key: value for argument, value in given if argument.place == "body"}
        if body or operation.needs_body:
            _add_body(parts, operation.content_type, body)
    return parts


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _quoted(value: Any) -> str:
    return quote(_text(value), safe="", errors="replace")


def _pairs(value: dict[str, Any], between: str) -> list[str]:
    return [f"{_quoted(key)}{between}{_quoted(part)}" for key, part in value.items()]


def _items(argument: Argument, value: Any) -> list[str]:
    """The parts of a value that are joined: itself, the items of a list, names and values of an object."""
    if argument.is_json:
        return [_quoted(json.dumps(value, ensure_ascii=False))]
    if isinstance(value, dict):
        return _pairs(value, "=") if argument.explode else [_quoted(part) for pair in value.items() for part in pair]
    return [_quoted(item) for item in value] if isinstance(value, list) else [_quoted(value)]


def _in_path(argument: Argument, value: Any) -> str:
    items = _items(argument, value)
    if argument.style == "label":
        return "." + ("." if argument.explode else ",").join(items)
    if argument.style == "matrix":
        if argument.explode and isinstance(value, dict):
            return "".join(f";{item}" for item in items)
        named = items if argument.explode else [",".join(items)]
        return "".join(f";{_quoted(argument.key)}={item}" for item in named)
    return ",".join(items)


def _in_query(argument: Argument, value: Any) -> list[str]:
    key = _quoted(argument.key)
    if isinstance(value, dict) and not argument.is_json:
        if argument.style == "deepObject":
            return [f"{key}%5B{_quoted(name)}%5D={_quoted(part)}" for name, part in value.items()]
        if argument.explode:
            return _pairs(value, "=")
    items = _items(argument, value)
    if argument.explode:
        return [f"{key}={item}" for item in items]
    return [f"{key}={SEPARATORS.get(argument.style, ',').join(items)}"]


def _in_header(argument: Argument, value: Any) -> str:
    if argument.is_json:
        text = json.dumps(value)
    elif isinstance(value, dict):
        pairs = [(key, _text(part)) for key, part in value.items()]
        text = ",".join(f"{key}={part}" if argument.explode else f"{key},{part}" for key, part in pairs)
    else:
        text = ",".join(map(_text, value)) if isinstance(value, list) else _text(value)
    if not (text.isascii() and text.isprintable()):
        raise WrongRequest(f"{argument.name}: holds characters that no header can hold")
    return text


def _add_body(parts: Parts, content_type: str, given: dict[str, Any]) -> None:
    kind = content_type.partition(";")[0].strip().lower()
    fields = [(key, item) for key, value in given.items() for item in (value if isinstance(value, list) else [value])]
    if kind == "multipart/form-data":
        parts.body = {"files": [(key, (None, _text(item).encode("utf-8", "replace"))) for key, item in fields]}
        return
    body = given.get("", given)
    if kind == "application/x-www-form-urlencoded":
        text = "&".join(f"{_quoted(key)}={_quoted(item)}" for key, item in fields)
    else:
        text = body if kind.startswith("text/") and isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    parts.headers["Content-Type"] = content_type
    parts.body = {"content": text.encode("utf-8", "replace")}

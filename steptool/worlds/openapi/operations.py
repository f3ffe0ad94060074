"""Operations of a document as tools: a name, one flat object of arguments, and where each of them goes in a request.

    GET /books/{id}   parameters: id (path), lang (query)   →  get_books_by_id(id, lang)
    PUT /books/{id}   body: {"id", "title"}                   →  put_books_by_id(id, id_body, title)

A name that two arguments have goes to the first, in the order path, query, header, cookie, body; the others get their
place at the end. A body that is no plain object of properties is one argument, `body`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from steptool.core.errors import InputError, reason
from steptool.core.types import Tool
from steptool.worlds.openapi.document import Document
from steptool.worlds.openapi.schemas import Schemas
from steptool.worlds.project.arguments import without_foreign_patterns

METHODS = ("get", "head", "post", "put", "patch", "delete", "options", "trace")
READING = {"get", "head"}
PLACES = ("path", "query", "header", "cookie")
IGNORED_HEADERS = {"accept", "content-type", "authorization"}
"""Parameters of these names are to be ignored, says the standard."""
STYLES = {"path": "simple", "query": "form", "header": "simple", "cookie": "form"}
PLAIN = {"type", "properties", "required", "description", "additionalProperties", "default", "examples", "$schema"}
"""Keywords of a body whose properties can stand beside the parameters."""
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


@dataclass(frozen=True)
class Argument:
    """One argument of a tool, and where it goes."""

    name: str
    """What the tool calls it."""
    place: str
    """One of PLACES, or body."""
    key: str
    """What the request calls it; empty where it is the whole body."""
    style: str = ""
    explode: bool = False
    is_json: bool = False
    """Whether the parameter is written as JSON, whatever its place."""


@dataclass(frozen=True)
class Operation:
    tool: Tool
    method: str
    """In capitals."""
    path: str
    server: str
    """Address that the path is appended to."""
    arguments: tuple[Argument, ...]
    content_type: str | None
    """Of the body, where it has one."""
    needs_body: bool
    """Whether one is sent where no argument of it is given."""
    security: tuple[Mapping[str, Any], ...]
    """Of these sets of schemes one is needed; an empty one needs nothing."""

    @property
    def is_reading(self) -> bool:
        return self.method.lower() in READING


def operations_of(
    document: Document, *, base_url: str | None, allow: Sequence[str], leave_out: Sequence[str]
) -> dict[str, Operation]:
    """The operations that may be called, by the names of their tools.

    `allow` and `leave_out` name operations as `createOrder` or as `POST /orders`. An operation is offered that reads
    and is not deprecated, or that `allow` names, unless `leave_out` names it. Raises InputError for a name that none
    has, for two operations of one name, and where nothing is left.
    """
    found: dict[str, Operation] = {}
    known = set[str]()
    listed = list(_listed(document))
    for method, path, item, operation in listed:
        place = f"{method.upper()} {path}"
        name = str(operation.get("operationId") or _readable(method, path))
        known |= {name, place}
        may = place in allow or name in allow or (method in READING and not operation.get("deprecated"))
        if not may or place in leave_out or name in leave_out:
            continue
        if name in found:
            other = f"{found[name].method} {found[name].path}"
            fix = "give each its own operationId, or name one of them in world.leave_out as METHOD /path"
            raise InputError(f"{other} and {place} are both called {name!r}", where=document.where, fix=fix)
        server = base_url or document.server(operation, item)
        try:
            found[name] = _operation(document, name, method, path, item, operation, server)
        except (AttributeError, TypeError, KeyError, ValueError, RecursionError) as error:
            said = f"is not written as OpenAPI has it: {reason(error)}"
            fix = "mend it, or name it in world.leave_out"
            raise InputError(said, where=f"{document.where}, {place}", fix=fix) from error
    for wanted in (*allow, *leave_out):
        if wanted not in known:
            near = get_close_matches(wanted, known, n=1)
            fix = f"did you mean {near[0]!r}?" if near else "write it as its operationId, or as METHOD /path"
            raise InputError(f"has no operation {wanted[:80]!r}", where=document.where, fix=fix)
    if not found:
        fix = "name those that may be called in world.allow, as POST /orders"
        raise InputError(f"none of its {len(listed)} operations only reads", where=document.where, fix=fix)
    return found


def _listed(document: Document) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Method, path, path item and operation."""
    for path, item in document.content["paths"].items():
        if not path.startswith("/"):
            continue  # an extension, x-…
        item = document.resolved(item)
        for method in METHODS:
            if method in item:
                yield method, path, item, document.resolved(item[method])


def _readable(method: str, path: str) -> str:
    """`get_books_by_id` for GET /books/{id}."""
    return "_".join([method, *re.findall(r"\w+", re.sub(r"\{(.*?)\}", r" by_\1 ", path))])


def _operation(
    document: Document,
    name: str,
    method: str,
    path: str,
    item: dict[str, Any],
    operation: dict[str, Any],
    server: str,
) -> Operation:
    where = f"{document.where}, {method.upper()} {path}"
    arguments = _Arguments(Schemas(document, where))
    parameters = _parameters(document, item, operation)
    for parameter in parameters:
        arguments.add_parameter(parameter)
    described = {argument.key for argument in arguments.listed if argument.place == "path"}
    if missing := [key for key in re.findall(r"\{(.*?)\}", path) if key not in described]:
        fix = "describe it among its parameters"
        raise InputError(f"no parameter says what {{{missing[0]}}} of its path is", where=where, fix=fix)
    content_type, body = None, None
    if "requestBody" in operation and method not in READING:
        body = document.resolved(operation["requestBody"])
        content_type = arguments.add_body(body, where)
    text = " ".join(f"{operation.get('summary') or ''} {operation.get('description') or ''}".split())
    security = operation.get("security", document.content.get("security")) or ()
    return Operation(
        tool=Tool(name=name, description=text or f"{method.upper()} {path}", parameters=arguments.schema()),
        method=method.upper(),
        path=path,
        server=server,
        arguments=tuple(arguments.listed),
        content_type=content_type,
        needs_body=body is not None and bool(body.get("required")),
        security=tuple(each for each in security if isinstance(each, dict)),
    )


def _parameters(document: Document, item: dict[str, Any], operation: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of the path and of the operation, which replaces those of the path; by their places."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for listed in (item.get("parameters"), operation.get("parameters")):
        for each in listed or ():
            parameter = document.resolved(each)
            place, key = str(parameter.get("in")), str(parameter.get("name"))
            if place in PLACES and not (place == "header" and key.lower() in IGNORED_HEADERS):
                found[place, key] = parameter
    return sorted(found.values(), key=lambda parameter: PLACES.index(parameter["in"]))


class _Arguments:
    """The arguments of one tool, as they are found."""

    def __init__(self, schemas: Schemas) -> None:
        self.listed: list[Argument] = []
        self._schemas = schemas
        self._properties: dict[str, Any] = {}
        self._required: list[str] = []

    def add_parameter(self, parameter: dict[str, Any]) -> None:
        place, key = parameter["in"], str(parameter["name"])
        content = parameter.get("content")
        is_json = isinstance(content, dict) and bool(content)
        schema = next(iter(content.values())).get("schema", {}) if is_json and content else parameter.get("schema", {})
        style = str(parameter.get("style", STYLES[place]))
        argument = Argument(
            self._free(key, place), place, key, style, parameter.get("explode", style == "form"), is_json
        )
        needed = bool(parameter.get("required")) or place == "path"
        self._put(argument, self._schemas.read(schema), parameter.get("description"), needed)

    def add_body(self, body: dict[str, Any], where: str) -> str:
        """Its content type."""
        contents = body.get("content") or {}
        content_type = next(filter(_is_json, contents), None) or next(
            (form for form in FORMS if form in contents), None
        )
        content_type = content_type or next((name for name in contents if name.startswith("text/")), None)
        if content_type is None:
            found = f"takes a body of {', '.join(contents) or 'no known type'}, which a policy cannot write"
            raise InputError(found, where=where, fix="take it out of world.allow")
        schema = contents[content_type].get("schema", {})
        read = self._schemas.read(schema)
        needed, is_form = bool(body.get("required")), content_type in FORMS
        if is_form or (_is_plain(read) and (needed or not read.get("required"))):
            names = read.get("properties", {}) if isinstance(read, dict) else {}
            for key, part in names.items():
                argument = Argument(self._free(key, "body"), "body", key)
                self._put(argument, part, None, key in read.get("required", ()) and needed)
        else:
            self._put(Argument(self._free("body", "body"), "body", ""), read, body.get("description"), needed)
        return content_type

    def schema(self) -> dict[str, Any]:
        """Of all arguments together."""
        defs = self._schemas.defs
        whole = {
            "type": "object",
            "properties": self._properties,
            **({"required": self._required} if self._required else {}),
            "additionalProperties": False,
            **({"$defs": defs} if defs else {}),
        }
        cleaned: dict[str, Any] = without_foreign_patterns(whole)
        return cleaned

    def _free(self, key: str, place: str) -> str:
        name = key if key not in self._properties else f"{key}_{place}"
        while name in self._properties:
            name += "_"
        return name

    def _put(self, argument: Argument, read: Any, description: Any, required: bool) -> None:
        read = read if isinstance(read, dict) else {}
        text = " ".join(str(description or read.get("description") or "").split())
        self._properties[argument.name] = read | ({"description": text} if text else {})
        self.listed.append(argument)
        if required:
            self._required.append(argument.name)


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _is_plain(schema: Any) -> bool:
    """Whether a body is an object of named properties and nothing else."""
    return (
        isinstance(schema, dict)
        and schema.get("type", "object") == "object"
        and bool(schema.get("properties"))
        and set(schema) <= PLAIN
        and isinstance(schema.get("additionalProperties", False), bool)
    )

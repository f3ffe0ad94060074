"""What the bundled world is made of: categories with fields, providers with APIs. Declared in `catalog`.

A category is a kind of thing (books); a provider is a tool in ToolBench's sense, a company that offers
some of these things through a few APIs. Every API is one of five kinds, so a skill learned on one
provider carries over to another whose names must be read from its signature:

    find    name              -> {"id": …}
    get     id or name        -> {field: value, …}
    list    group (a city, …) -> [{field: value, …}, …]
    act     id or name, count -> {"code": …}
    quote   id or name, count -> {"total": …}
    code    group             -> {"code": …}      the code that `list` takes in place of a name
    convert id or name, amount-> {"result": …}    amount times the `rate` of a currency
"""

from __future__ import annotations

from typing import Any, Literal

from steptool.core.types import Frozen, Tool
from steptool.worlds.base import Split

Wording = tuple[str, str, str]
"""One wording each for train, dev and test."""

MAX_TEXT = 80
"""Longest string argument, in characters."""
MAX_AMOUNT = 1_000_000
MAX_COUNT = 20

OPTIONS: dict[str, tuple[str, str]] = {"currency": ("USD", "EUR"), "unit": ("C", "F")}
"""Optional arguments and their values, the first one being the default."""


class Field(Frozen):
    """A column of a category. Values are drawn from `choices`, or from range(low, high, step)."""

    name: str
    nouns: Wording
    """How queries speak of it."""
    own: bool = False
    """True: every provider has its own value (a price). False: a fact that all agree on (an author)."""
    low: int = 0
    high: int = 0
    step: int = 1
    choices: tuple[str, ...] = ()
    vocabulary: Literal["person", "city", "type", "country", ""] = ""
    """Values that name an entity come from a vocabulary of the split."""
    less: Wording | None = None
    """Comparative for the smaller value (cheaper), where a query may ask so."""
    more: Wording | None = None


class Category(Frozen):
    name: str
    noun: str
    key: str
    """Column that holds the name of an item: title, city, …"""
    prefix: str
    """Two letters that ids start with."""
    naming: tuple[str, ...]
    """Patterns over the vocabularies, such as `The {adjective} {noun}`."""
    fields: tuple[Field, ...]
    group: str = ""
    """The field that `list` filters by."""
    in_group: str = ""
    """How a query says it: `by {g}`."""
    ordering: Wording = ("", "", "")
    """How a query asks to order: `order {c} copies of {n}`."""
    counted: str = ""
    """`{c} copies of {n}`, for quotes."""
    held_out: Split | None = None
    """Split that alone uses the category; None where training sees it."""

    def field(self, name: str) -> Field:
        return next(field for field in self.fields if field.name == name)


class Api(Frozen):
    name: str
    kind: Literal["find", "get", "list", "act", "quote", "code", "convert"]
    key: str
    """Name of the argument that says which item or group."""
    by: Literal["id", "name", "group"]
    fields: tuple[str, ...] = ()
    """What `get` and `list` reply, in order."""
    count: str = ""
    """Name of the integer argument of `act` and `quote`, of the number argument of `convert`."""
    option: str = ""
    """Optional argument, a key of OPTIONS."""
    limit: str = ""
    """Optional argument of `list`: highest price."""
    text: str = ""

    def parameters(self) -> dict[str, Any]:
        """JSON schema of the arguments."""
        properties: dict[str, Any] = {self.key: {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}}
        required = [self.key]
        if self.count and self.kind == "convert":
            properties[self.count] = {"type": "number", "minimum": 0, "maximum": MAX_AMOUNT}
        elif self.count:
            properties[self.count] = {"type": "integer", "minimum": 1, "maximum": MAX_COUNT}
        if self.count:
            required.append(self.count)
        if self.option:
            properties[self.option] = {"type": "string", "enum": list(OPTIONS[self.option])}
        if self.limit:
            properties[self.limit] = {"type": "number", "minimum": 0, "maximum": MAX_AMOUNT}
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


class Provider(Frozen):
    name: str
    category: str
    collection: str
    role: Split
    """train: seen in training, and used by every split. dev, test: offered in that split only."""
    apis: tuple[Api, ...]

    def full(self, api: Api) -> str:
        return f"{self.name}.{api.name}"

    def tool(self, api: Api) -> Tool:
        return Tool(
            name=self.full(api),
            description=api.text,
            parameters=api.parameters(),
            category=self.category,
            collection=self.collection,
        )

    def first(self, kind: str, field: str = "") -> Api | None:
        """The first API of a kind, one that replies `field` where that is given."""
        return next((api for api in self.apis if api.kind == kind and (not field or field in api.fields)), None)

    def need(self, kind: str, field: str = "") -> Api:
        """`first`, where the catalogue must have one."""
        api = self.first(kind, field)
        if api is None:
            raise LookupError(f"provider {self.name} has no {kind} API {field and 'that tells ' + field}")
        return api


def _is_id(key: str) -> bool:
    return key in ("id", "ref", "code") or key.endswith("_id")


def find(name: str, key: str, text: str) -> Api:
    return Api(name=name, kind="find", key=key, by="name", text=text)


def get(name: str, key: str, fields: str, text: str = "", option: str = "") -> Api:
    """Without `text`, the description names the fields: a client must see which API tells what."""
    by: Literal["id", "name"] = "id" if _is_id(key) else "name"
    names = tuple(fields.split())
    return Api(name=name, kind="get", key=key, by=by, fields=names, text=text or ", ".join(names), option=option)


def listing(name: str, key: str, fields: str, text: str, limit: str = "") -> Api:
    return Api(name=name, kind="list", key=key, by="group", fields=tuple(fields.split()), text=text, limit=limit)


def code(name: str, key: str, text: str) -> Api:
    return Api(name=name, kind="code", key=key, by="group", text=text)


def counted(kind: Literal["act", "quote", "convert"], name: str, key: str, count: str, text: str) -> Api:
    return Api(name=name, kind=kind, key=key, by="id" if _is_id(key) else "name", count=count, text=text)


def provider(name: str, category: str, collection: str, role: Split, *apis: Api) -> Provider:
    return Provider(name=name, category=category, collection=collection, role=role, apis=apis)

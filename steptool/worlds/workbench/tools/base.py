"""What a tool of the office is made of.

Replies and error texts are those of the benchmark, so that recorded runs read the same here. A tool that refuses a call
raises `Refused` before it has changed anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from steptool.core.types import Tool
from steptool.worlds.workbench.office import Office

Given = Mapping[str, str]
"""The arguments of a call that are neither absent nor empty."""
Reply = Any
"""What JSON can hold: a text, an object, or a list."""
MOST_FOUND = 5
"""Rows that a search of events, emails or customers shows."""
DATE, TIME = "YYYY-MM-DD", "YYYY-MM-DD HH:MM:SS"


class Refused(Exception):
    """A call that fails. `kind` is the kind of its error, the message what the policy reads."""

    def __init__(self, text: str, kind: str = "invalid_argument") -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class Argument:
    name: str
    description: str = ""
    optional: bool = False
    choices: tuple[str, ...] = ()

    def schema(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"type": "string"}
        if self.choices:
            shown["enum"] = list(self.choices)
        if self.description:
            shown["description"] = self.description
        return shown


def sought(argument: Argument) -> Argument:
    """The argument as a search takes it: part of a value, capitals apart, is enough, and none is needed."""
    hint = ", ".join(argument.choices) or argument.description
    return Argument(argument.name, hint, optional=True)


@dataclass(frozen=True)
class OfficeTool:
    name: str
    description: str
    arguments: tuple[Argument, ...]
    run: Callable[[Office, Given], Reply]

    @property
    def domain(self) -> str:
        return self.name.partition(".")[0]

    def as_tool(self) -> Tool:
        """As a policy is shown it."""
        parameters = {
            "type": "object",
            "properties": {argument.name: argument.schema() for argument in self.arguments},
            "required": [argument.name for argument in self.arguments if not argument.optional],
        }
        return Tool(name=self.name, description=self.description, parameters=parameters, category=self.domain)


def need(given: Given, *names: str, text: str) -> list[str]:
    """The values of arguments that must be there. Raises Refused with `text` where one is not."""
    if any(name not in given for name in names):
        raise Refused(text, "missing_argument")
    return [given[name] for name in names]


def one_of(value: str, choices: tuple[str, ...], text: str, end: str = "") -> str:
    """`value`. Raises Refused where it is none of the choices."""
    if value not in choices:
        raise Refused(f"{text} not valid. Please choose from: {', '.join(map(repr, choices))}{end}")
    return value


def moment(text: str) -> datetime:
    """A date or a time as it is compared. Raises Refused for what is neither."""
    try:
        return datetime.fromisoformat(text.strip()).replace(tzinfo=None)
    except ValueError as error:
        raise Refused(f"{text[:80]!r} is not a date. Write it as {TIME} or {DATE}.") from error


def field_of(office: Office, table: str, noun: str, given: Given) -> Reply:
    """One field of the row whose id is given."""
    key = f"{noun.lower()}_id"
    [value] = need(given, key, text=f"{noun} ID not provided.")
    [field] = need(given, "field", text="Field not provided.")
    row = found(office, table, noun, value)
    if field not in row:
        raise Refused("Field not found.")
    return {field: row[field]}


def found(office: Office, table: str, noun: str, key: str) -> Mapping[str, str | None]:
    """The row of this id. Raises Refused where there is none."""
    row = office.find(table, key)
    if row is None:
        raise Refused(f"{noun} not found.", "unknown_id")
    return row


def delete(office: Office, table: str, noun: str, given: Given) -> Reply:
    """Delete the row whose id is given."""
    [key] = need(given, f"{noun.lower()}_id", text=f"{noun} ID not provided.")
    found(office, table, noun, key)
    office.remove(table, key)
    return f"{noun} deleted successfully."


def to_update(given: Given, noun: str) -> tuple[str, str, str]:
    """Id, field and new value of an update. Raises Refused where one is not given."""
    text = f"{noun} ID, field, or new value not provided."
    key, field, value = need(given, f"{noun.lower()}_id", "field", "new_value", text=text)
    return key, field, value

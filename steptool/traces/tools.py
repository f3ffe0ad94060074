"""The tools of many conversations as one list.

    one tool, described in several ways      the commonest description is kept
    parameters that are no JSON schema       inferred from the calls, as for a tool that is called and nowhere described

What is inferred of an argument: its type, and whether every call gives it. Never its values, which are data.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from steptool.core.types import FINISH, Step, Tool
from steptool.worlds.checks import MAX_NAME, MAX_TEXT, schema_problem

INFERRED = "Described nowhere in the traces; its arguments are those of the calls."


class Offered:
    """Collects tools and calls; holds one entry a description and a tool, whatever the number of conversations."""

    def __init__(self) -> None:
        self._described: dict[str, Counter[str]] = {}
        self._called: dict[str, _Arguments] = {}

    def add(self, tools: Iterable[Tool], steps: Iterable[Step]) -> None:
        for tool in tools:
            self._described.setdefault(tool.name, Counter())[tool.model_dump_json()] += 1
        for step in steps:
            if not step.is_finish:
                for call in step.action.calls:
                    self._called.setdefault(call.name, _Arguments()).add(call.arguments)

    def all(self) -> list[Tool]:
        """By name; a tool whose name no world may have is left out, such as that of what ends an attempt."""
        found = (self._tool(name) for name in sorted({*self._described, *self._called}))
        return [tool for tool in found if tool is not None]

    def inferred(self) -> list[str]:
        """Names of the tools whose arguments are known from calls alone."""
        return [name for name in sorted({*self._described, *self._called}) if not self._stated(name)]

    def varied(self) -> list[str]:
        """Names of the tools that were described in several ways."""
        return [name for name, written in sorted(self._described.items()) if len(written) > 1]

    def _stated(self, name: str) -> Tool | None:
        for text, _ in self._described.get(name, Counter()).most_common():
            tool = Tool.model_validate_json(text)
            if len(text) <= MAX_TEXT and not schema_problem(json.dumps(tool.parameters, sort_keys=True)):
                return tool
        return None

    def _tool(self, name: str) -> Tool | None:
        is_ending = name.strip().casefold() == FINISH.casefold()
        if is_ending or not name.strip() or not name.isprintable() or len(name) > MAX_NAME:
            return None
        arguments = self._called.get(name, _Arguments())
        return self._stated(name) or Tool(name=name, description=INFERRED, parameters=arguments.schema())


class _Arguments:
    """The arguments of all calls of one tool."""

    def __init__(self) -> None:
        self._calls = 0
        self._given: Counter[str] = Counter()
        self._types: dict[str, set[str]] = {}

    def add(self, arguments: dict[str, Any]) -> None:
        self._calls += 1
        self._given.update(arguments.keys())
        for name, value in arguments.items():
            self._types.setdefault(name, set()).add(_type_of(value))

    def schema(self) -> dict[str, Any]:
        required = [name for name, count in self._given.items() if count == self._calls]
        properties = {name: _schema_of(types) for name, types in self._types.items()}
        return {"type": "object", "properties": properties, **({"required": required} if required else {})}


_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "boolean"),  # before int, of which it is one
    (int, "integer"),
    (float, "number"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
)


def _type_of(value: Any) -> str:
    return next((name for kind, name in _TYPES if isinstance(value, kind)), "null")


def _schema_of(types: set[str]) -> dict[str, Any]:
    names = sorted(types - {"integer"} if "number" in types else types)
    kind: Any = names[0] if len(names) == 1 else names
    return {"type": kind, "items": {}} if kind == "array" else {"type": kind}

"""Arguments of a call, checked against the JSON schema of its tool, with messages that a policy can learn from:

count: 0 is less than the minimum of 1
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from referencing import Registry

from steptool.core.errors import InputError
from steptool.core.types import Tool, ToolCall
from steptool.worlds.checks import schema_problem

MAX_PROBLEMS = 3
"""How many wrong arguments a message names."""
MAX_MESSAGE = 200
"""Characters of one of them."""


class Arguments:
    """What the arguments of one tool must be. Raises InputError where its parameters are no JSON schema."""

    def __init__(self, tool: Tool, where: str) -> None:
        self._names = list(tool.parameters.get("properties", {}))
        if problem := schema_problem(json.dumps(tool.parameters, sort_keys=True)):
            raise InputError(
                f"tool {tool.name!r} {problem}", where=where, fix="mend its schema there, or leave the tool out"
            )
        self._validator = Draft202012Validator(tool.parameters, registry=Registry())  # a $ref is never fetched

    def problem(self, arguments: dict[str, Any]) -> str | None:
        """Why these arguments do not fit, for the policy; None where they do."""
        found = list(dict.fromkeys(self._problems(arguments)))
        return "; ".join(found[:MAX_PROBLEMS]) or None

    def _problems(self, arguments: dict[str, Any]) -> Iterator[str]:
        for error in sorted(self._validator.iter_errors(arguments), key=lambda error: list(map(str, error.path))):
            closest = best_match([error])  # of `anyOf`: the branch that fits best
            place, text = ".".join(map(str, closest.absolute_path)), _message(closest)
            if closest.validator == "additionalProperties" and closest.validator_value is False and not place:
                text = f"there is no {_unknown(arguments, self._names)}, use {', '.join(self._names) or 'no arguments'}"
            yield f"{place}: {text}" if place else text


class ArgumentsOfTools:
    """Those of a toolbox. The schema of a tool is read at its first call: some take tenths of a second, and a service
    may have hundreds of operations of which the tasks offer ten. `prepare` checks those that they offer."""

    def __init__(self, tools: Mapping[str, Tool], where: str) -> None:
        self._tools, self._where = tools, where
        self._read: dict[str, Arguments] = {}

    def problem(self, call: ToolCall) -> str | None:
        """See `Arguments`, which raises InputError for parameters that are no JSON schema."""
        if call.name not in self._read:
            self._read[call.name] = Arguments(self._tools[call.name], self._where)
        return self._read[call.name].problem(call.arguments)


def _message(error: ValidationError) -> str:
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]  # type: ignore[union-attr,operator]
        return f"{', '.join(missing)} must be given"
    value = error.instance
    text = str(error.message).replace(repr(value), json.dumps(value, ensure_ascii=False), 1)
    return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE // 2]} ... {text[-MAX_MESSAGE // 2 :]}"


def _unknown(arguments: dict[str, Any], names: list[str]) -> str:
    return ", ".join(name[:50] for name in arguments if name not in names)


def without_foreign_patterns(schema: Any) -> Any:
    """`schema` without the patterns that Python cannot read, such as JavaScript's `\\p{L}`: whoever wrote one checks it
    anyway."""
    if isinstance(schema, list):
        return [without_foreign_patterns(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: part for key, part in schema.items() if key != "pattern" or _is_readable(part)}
    return {key: without_foreign_patterns(part) for key, part in kept.items()}


def _is_readable(pattern: Any) -> bool:
    try:
        return not isinstance(pattern, str) or bool(re.compile(pattern))
    except re.error:
        return False

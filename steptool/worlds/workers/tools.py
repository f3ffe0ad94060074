"""Functions as tools: a JSON schema from signature and docstring, and a check of arguments against the signature."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from types import MethodType, ModuleType
from typing import Any, get_type_hints

import docstring_parser
from pydantic import ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema

from steptool.core.errors import InputError, reason
from steptool.core.types import Tool

MAX_PROBLEMS = 3
"""How many wrong arguments an observation names."""
Function = Callable[..., Any]


class WrongArguments(Exception):
    """Arguments that do not fit the signature. The message is for the policy."""


class FunctionTool:
    """One function: what a policy sees of it, and what its arguments must be.

    `where` names the module. Raises InputError where the function has no docstring, or an argument has no name, no
    type, or one that JSON does not hold.
    """

    def __init__(self, name: str, function: Function, where: str) -> None:
        where = f"{where}, function {name}"
        documented = docstring_parser.parse(inspect.getdoc(function) or "")
        if not documented.short_description:
            raise InputError(
                "has no docstring",
                where=where,
                fix="write one that says what it does: the policy reads it; or begin its name with _ if it is no tool",
            )
        described = {entry.arg_name: _one_line(entry.description) for entry in documented.params}
        fields: dict[str, Any] = {}
        for argument, annotation, default in _parameters(function, where):
            # A description in the annotation stays where the docstring has none.
            text: dict[str, Any] = {"description": described[argument]} if described.get(argument) else {}
            # Under a name of our own: an argument may be called as a method of the model is.
            fields[f"argument_{len(fields)}"] = (annotation, Field(default, alias=argument, **text))
        try:
            self._arguments = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
            schema = self._arguments.model_json_schema(schema_generator=_WithoutTitles)
        except (PydanticUserError, TypeError) as error:
            raise InputError(
                f"has a type that JSON does not hold: {reason(error).partition(' For further information')[0]}",
                where=where,
                fix="take str, int, float, bool, lists and dicts of these, an Enum, or a pydantic model",
            ) from error
        del schema["title"]
        description = _one_line(f"{documented.short_description} {documented.long_description or ''}")
        self.tool = Tool(name=name, description=description, parameters=schema)

    def read(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`arguments`, as JSON holds them, as the types of the signature; defaults are left to the function.

        Raises WrongArguments.
        """
        try:
            read = self._arguments.model_validate_json(json.dumps(arguments), strict=True)
        except ValidationError as error:
            raise WrongArguments(self._explained(error)) from error
        fields = self._arguments.model_fields
        return {str(fields[name].alias): getattr(read, name) for name in fields if name in read.model_fields_set}

    def _explained(self, error: ValidationError) -> str:
        found = []
        for problem in error.errors()[:MAX_PROBLEMS]:
            place, text = ".".join(map(str, problem["loc"])), problem["msg"]
            if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
                text = f"no such argument, use {', '.join(self.tool.parameters['properties']) or 'none'}"
            found.append(f"{place}: {text}" if place else text)
        return "; ".join(found)


def public_functions(home: ModuleType | type) -> dict[str, Function]:
    """The functions that are written in a module, or the methods of a class, without those whose name begins with `_`;
    in the order in which they are written."""
    owners = [home] if isinstance(home, ModuleType) else reversed(home.__mro__)
    names = dict.fromkeys(name for owner in owners for name in vars(owner) if not name.startswith("_"))
    found = {name: _function(home, name) for name in names}
    return {name: function for name, function in found.items() if function is not None}


def _function(home: ModuleType | type, name: str) -> Function | None:
    value = inspect.getattr_static(home, name)
    if isinstance(home, ModuleType):
        return value if inspect.isfunction(value) and value.__module__ == home.__name__ else None
    if isinstance(value, staticmethod | classmethod):
        return getattr(home, name)
    return MethodType(value, home) if inspect.isfunction(value) else None  # bound: `self` is no argument


def _parameters(function: Function, where: str) -> list[tuple[str, Any, Any]]:
    """Name, type and default (`...` where there is none) of each argument."""
    try:
        types = get_type_hints(function, include_extras=True)
    except Exception as error:  # an annotation may be any expression
        raise InputError(f"has a type that cannot be read: {reason(error)}", where=where, fix="mend it") from error
    found = []
    for parameter in inspect.signature(function).parameters.values():
        name = parameter.name
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise InputError(
                f"takes {parameter}, but a call gives each argument by its name",
                where=where,
                fix="give each argument a name and a type",
            )
        if name not in types:
            raise InputError(f"does not say what its argument {name} is", where=where, fix=f"write `{name}: str`")
        found.append((name, types[name], ... if parameter.default is parameter.empty else parameter.default))
    return found


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


class _WithoutTitles(GenerateJsonSchema):
    """Titles repeat names, and cost tokens."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

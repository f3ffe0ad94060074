"""Whether calls are those that a single-turn task accepts: the rule of the benchmark's `ast_checker`, written anew.

    {"book": {"city": ["Oslo", "oslo, NO"], "nights": [2], "note": ["", "late"]}}     accepted values of each parameter

A call passes where it has the accepted name, every required parameter and none that is not accepted, each with the
type that the function describes and one of its accepted values. A parameter may be left out where "" is among these.
Of texts, letter case, spaces and ``, . / - _ * ^`` do not count. The benchmark's own module imports every client that
it knows; tests hold this one against it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

from steptool.core.types import ToolCall
from steptool.worlds.bfcl.package import converter
from steptool.worlds.bfcl.records import Accepted, FunctionRow

Language = Literal["python", "java", "javascript"]
PYTHON: dict[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}
WITH_ITEMS = {"python": ("array", "tuple"), "java": ("Array", "ArrayList"), "javascript": ("array",)}
_IGNORED = re.compile(r"[ ,./\-_*^]")


def problem_of(
    calls: Sequence[ToolCall], accepted: Sequence[Accepted], functions: Sequence[FunctionRow], language: Language
) -> str:
    """What is wrong with the calls of an attempt; empty where they are accepted, in whatever order."""
    if len(calls) != len(accepted):
        return f"{len(calls)} calls, not {len(accepted)}"
    left = list(calls)
    for wanted in accepted:
        name = next(iter(wanted))
        function = next(each for each in functions if each.name == name)
        problems = [_call_problem(call, wanted[name], function, language) for call in left]
        if "" not in problems:
            return problems[0] if len(accepted) == 1 else f"no call passes for {name}: {problems[0]}"
        del left[problems.index("")]
    return ""


def type_problem(function: FunctionRow, language: Language) -> str:
    """What the benchmark cannot compare of the types that a function describes; empty where it knows them all."""
    known = _types(language)
    for name, described in function.parameters["properties"].items():
        kind, nested = described["type"], described.get("items", {}).get("type")
        if kind in WITH_ITEMS[language] and nested is None:
            return f"function {function.name[:64]}: {name[:64]} is of the type {kind}, and its items have none"
        for each in (kind, nested) if kind in WITH_ITEMS[language] else (kind,):
            if each not in known:
                said = f"the type {each[:64]!r}, which is none of {', '.join(known)}"
                return f"function {function.name[:64]}: {name[:64]} is of {said}"
    return ""


def _types(language: Language) -> dict[str, type]:
    return PYTHON if language == "python" else converter(language)[0]


def _call_problem(call: ToolCall, accepted: dict[str, list[Any]], function: FunctionRow, language: Language) -> str:
    if call.name != function.name:
        return f"calls {call.name}, not {function.name}"
    described = function.parameters["properties"]
    if missing := [name for name in function.parameters["required"] if name not in call.arguments]:
        return f"{missing[0]} is required"
    for name, value in call.arguments.items():
        if name not in described or name not in accepted:
            return f"{name} is not expected"
        if not _is_accepted(value, accepted[name], described[name], language):
            return f"{name} is another"
    missing = [name for name, values in accepted.items() if name not in call.arguments and "" not in values]
    return f"{missing[0]} is missing" if missing else ""


def _is_accepted(value: Any, accepted: list[Any], described: dict[str, Any], language: Language) -> bool:
    kind = str(described["type"])
    nested = str(described["items"]["type"]) if kind in WITH_ITEMS[language] else None
    types = _types(language)
    if language == "python":
        if kind == "float" and type(value) is int:
            value = float(value)
    else:  # whose values are texts, in their own syntax
        if not isinstance(value, str):
            return False
        _, convert = converter(language)
        try:
            value = convert(value, kind, nested) if nested else convert(value, kind)
        except (ValueError, NotImplementedError):  # thousands of digits, or a type that it cannot read
            return False
    expected, items = types[kind], types[nested] if nested else None
    if not _has_type(value, accepted, expected, items):
        return False
    if _is_variable(value, accepted, expected):
        return value in accepted
    return _matcher(expected, items)(value, accepted)


def _type_of(accepted: Sequence[Any]) -> type | None:
    """Of the first accepted value that is no mark of what may be left out."""
    return next((type(value) for value in accepted if value != ""), None)


def _has_type(value: Any, accepted: list[Any], expected: type, items: type | None) -> bool:
    kind = type(value)
    if kind is not expected:
        return kind is _type_of(accepted)
    if items is None:
        return True
    lists = [each if isinstance(each, list) else None for each in accepted]
    return any(each is None or all(_has_type(item, each, items, None) for item in value) for each in lists)


def _is_variable(value: Any, accepted: list[Any], expected: type) -> bool:
    """Whether the name of a variable is accepted, in the place of a value of the type that is described."""
    kind = _type_of(accepted)
    return type(value) is not expected or (kind is not None and kind is not expected)


def _matcher(expected: type, items: type | None) -> Callable[[Any, list[Any]], bool]:
    if expected is dict:
        return _is_dict
    if expected is list and items is dict:
        return _is_list_of_dicts
    if expected is list:
        return lambda value, accepted: _plain_items(value) in [_plain_items(each) for each in accepted]
    if expected is str:
        return lambda value, accepted: _plain(value) in [_plain(each) for each in accepted if isinstance(each, str)]
    return lambda value, accepted: value in accepted


def _is_dict(value: dict[str, Any], accepted: list[Any]) -> bool:
    return any(_fits(value, each) for each in accepted if each != "")


def _fits(value: Any, accepted: Any) -> bool:
    """Whether it is a dictionary that is accepted. Items of a list that may be left out come here with any type."""
    if not (isinstance(value, dict) and isinstance(accepted, dict)):
        return False
    for key, item in value.items():
        if key not in accepted or _plain(item) not in [_plain(each) for each in accepted[key]]:
            return False
    return all(key in value or "" in items for key, items in accepted.items())


def _is_list_of_dicts(value: list[Any], accepted: list[Any]) -> bool:
    return any(
        len(value) == len(each) and all(_is_dict(item, [wanted]) for item, wanted in zip(value, each, strict=True))
        for each in accepted
    )


def _plain(value: Any) -> Any:
    return _IGNORED.sub("", value).lower().replace("'", '"') if isinstance(value, str) else value


def _plain_items(values: Any) -> list[Any]:
    return [_plain(value) for value in values]

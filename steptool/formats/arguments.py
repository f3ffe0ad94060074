"""The arguments of a call as a model wrote them: a JSON object, read strictly, in any format whose calls hold one."""

from __future__ import annotations

import json
import math
from typing import Any

from steptool.core.types import FINISH

MAX_DEPTH = 16
"""Deepest nesting of a call's arguments; deeper is a parse error, not a crash further down."""
MAX_DIGITS = 1000
"""Of an integer in the arguments; Python itself refuses to read or write one of more than 4300."""


def read_arguments(text: str) -> dict[str, Any] | str:
    """The object that `text` is, or what is wrong with it."""
    if not text.startswith("{"):
        return "no JSON object"
    try:
        arguments: dict[str, Any] = json.loads(
            text,
            parse_int=_readable,
            parse_float=_finite,
            parse_constant=_refuse,
            object_pairs_hook=_without_duplicates,
        )
        json.dumps(arguments, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        return f"arguments are not JSON: {error.msg} at character {error.pos}"
    except UnicodeEncodeError:
        return "arguments are not JSON: half of a surrogate pair"
    except RecursionError:
        return "arguments are nested too deeply"
    except ValueError as error:  # the refusals below
        return f"arguments are not JSON: {error}"
    return "arguments are nested too deeply" if depth_of(arguments) > MAX_DEPTH else arguments


def ends_attempt(arguments: dict[str, Any]) -> bool:
    """Are these the arguments of `Finish`, that is an answer or `"give_up": true`?"""
    if set(arguments) == {"answer"}:
        return arguments["answer"] is not None
    return set(arguments) == {"give_up"} and arguments["give_up"] is True


FINISH_PROBLEM = f'{FINISH} takes either "answer" or "give_up": true'
"""What is wrong with other arguments of `Finish`."""


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def _readable(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError("an integer is too long")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:32]} is too large")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)[:32]!r} is given twice")
    return found


def depth_of(value: Any) -> int:
    """Levels of objects and arrays, counted level by level so that the stack cannot overflow."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth

"""What a task of a project may be checked by. One of these, or a list of them, of which all must hold:

{"kind": "number", "expected": 9.5, "tolerance": 0.01}     the answer: kind text, number or set; prose may say it,
                                                           unless "strict": true
{"kind": "judge"}                                          nothing exact: an annotator must tell
"is_ordered"                                               a function of the project, of answer, calls and state
{"kind": "state", "tool": "orders", "arguments": {},       what a tool replies once the attempt has ended: the
 "path": "$[?@.title == 'Dune'].count", "expected": [2]}   values at a JSONPath (RFC 9535)
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal

import jsonpath
from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator

from steptool.core.errors import WorldError
from steptool.core.storage import parse_json
from steptool.core.types import AnswerCheck, Frozen
from steptool.worlds.answers import is_correct

MAX_PATH = 1_000
"""Characters of a JSONPath."""


def _path(text: str) -> str:
    try:
        _compiled(text)
    except jsonpath.JSONPathError as error:
        said = str(error.args[0]) if error.args else type(error).__name__
        raise ValueError(f"{text[:80]!r} is no JSONPath, such as $.items[0].title: {said[:200]}") from error
    return text


@lru_cache(maxsize=1024)
def _compiled(path: str) -> Any:
    return jsonpath.compile(path, strict=True)


class StateCheck(Frozen):
    """What a tool must reply after the attempt.

    `expected` is compared with the one value at `path`: a text as text answers are, a number within `tolerance`,
    anything else as it is. A list is compared with all values there (those of the list, where the only value is one),
    in any order; an empty list says that there must be none.
    """

    kind: Literal["state"]
    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    path: Annotated[str, Field(min_length=1, max_length=MAX_PATH), AfterValidator(_path)] = "$"
    expected: Any
    tolerance: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    @field_validator("expected")
    @classmethod
    def _can_be_expected(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str):
            AnswerCheck(kind="text", expected=value)  # it refuses what no text could equal
        return value

    def found_in(self, reply: str) -> list[Any]:
        """The values at the path of a reply. One that is no JSON is a text, which `$` is the path of.

        Raises WorldError where the reply is nested too deeply to follow the path.
        """
        try:
            value = parse_json(reply)
        except ValueError:
            value = reply
        if isinstance(value, str):  # of which the library would read JSON
            return [value] if self.path == "$" else []
        try:
            return list(_compiled(self.path).findall(value))
        except (jsonpath.JSONPathError, RecursionError) as error:
            found = f"the path {self.path} cannot be followed in the reply of {self.tool}"
            raise WorldError(found, fix="name a tool that replies with less") from error

    def holds(self, found: list[Any]) -> bool:
        """Whether `found`, the values at the path, are what is expected."""
        if not isinstance(self.expected, list):
            return len(found) == 1 and _equals(self.expected, found[0], self.tolerance)
        left = list(found[0]) if len(found) == 1 and isinstance(found[0], list) else list(found)
        for wanted in self.expected:
            place = next((place for place, value in enumerate(left) if _equals(wanted, value, self.tolerance)), None)
            if place is None:
                return False
            del left[place]
        return not left


def _equals(expected: Any, value: Any, tolerance: float) -> bool:
    if isinstance(expected, bool) or isinstance(value, bool):
        return expected is value
    if isinstance(expected, (int, float)) and isinstance(value, (int, float)):
        return abs(value - expected) <= tolerance + 1e-9
    if isinstance(value, str) and isinstance(expected, (str, int, float)):
        kind: Literal["text", "number"] = "text" if isinstance(expected, str) else "number"
        return is_correct(AnswerCheck(kind=kind, expected=expected), value)
    return bool(expected == value)


def _kind(value: Any) -> str:
    if isinstance(value, (str, StateCheck)):
        return "function" if isinstance(value, str) else "state"
    return "state" if isinstance(value, dict) and value.get("kind") == "state" else "answer"


def _in_prose(value: Any) -> Any:
    """A check of an answer, which need not be strict in a file of tasks."""
    return {"strict": False, **value} if isinstance(value, dict) and value.get("kind") != "judge" else value


def _listed(value: Any) -> Any:
    if isinstance(value, list) and not value:
        raise ValueError("is an empty list, which checks nothing: leave it out, or name a check")
    return () if value is None else value if isinstance(value, (list, tuple)) else (value,)


Check = Annotated[
    Annotated[AnswerCheck, BeforeValidator(_in_prose), Tag("answer")]
    | Annotated[StateCheck, Tag("state")]
    | Annotated[str, Field(min_length=1), Tag("function")],
    Discriminator(_kind),
]
Checks = Annotated[tuple[Check, ...], BeforeValidator(_listed)]
"""None, one, or several of which all must hold."""

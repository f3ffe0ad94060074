"""The lines of the benchmark's files, and the calls of its ground truth, read without evaluating them."""

from __future__ import annotations

import ast
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, field_validator

from steptool.core.types import Frozen
from steptool.worlds.bfcl.package import CLASSES


class Said(BaseModel):
    role: str
    content: str


class FunctionRow(BaseModel):
    """A function as the benchmark describes it; its types are named as in Python, not as in JSON schema."""

    name: str
    description: str
    parameters: dict[str, Any]

    @field_validator("parameters")
    @classmethod
    def _of_an_object(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        properties = parameters.get("properties")
        if not isinstance(properties, dict) or not isinstance(parameters.get("required"), list):
            raise ValueError("has no object of properties, or no list of those that are required")
        for name, each in properties.items():
            items = each.get("items", {"type": ""}) if isinstance(each, dict) else None
            if not (isinstance(items, dict) and all(isinstance(part.get("type"), str) for part in (each, items))):
                raise ValueError(f"{name[:80]} or its items have no type")
        return parameters


class TurnsRow(BaseModel):
    """A task of several turns."""

    id: str
    question: list[list[Said]] = Field(min_length=1)
    """The messages of each turn; none where functions arrive instead (`missed_function`)."""
    initial_config: dict[str, dict[str, Any]]
    """Class → what its object begins with."""
    involved_classes: list[str]
    missed_function: dict[int, list[str]] = {}
    """Turn, from 0 → functions that are offered from it on only."""

    @field_validator("involved_classes")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        if unknown := [name for name in names if name not in CLASSES]:
            raise ValueError(f"{unknown[0][:80]!r} is not among the classes that may be run: {', '.join(CLASSES)}")
        return names


class Call(Frozen):
    """A call of the ground truth."""

    name: str
    args: tuple[Any, ...] = ()
    arguments: dict[str, Any] = Field(default_factory=dict)


class TurnsAnswer(BaseModel):
    id: str
    ground_truth: list[list[Call]]
    """The calls of each turn; none where the turn cannot be done yet."""

    @field_validator("ground_truth", mode="before")
    @classmethod
    def _read(cls, turns: Any) -> Any:
        return [[read_call(call) for call in turn] for turn in _TEXTS.validate_python(turns)]


_TEXTS: TypeAdapter[list[list[str]]] = TypeAdapter(list[list[str]])

Accepted = dict[str, dict[str, list[Any]]]
"""A function's name → parameter → accepted values; "" marks one that may be left out."""


class SingleRow(BaseModel):
    """A task of one turn."""

    id: str
    question: list[list[Said]] = Field(min_length=1, max_length=1)
    function: list[FunctionRow]


class SingleAnswer(BaseModel):
    id: str
    ground_truth: list[Accepted] = Field(min_length=1)

    @field_validator("ground_truth")
    @classmethod
    def _named(cls, calls: list[Accepted]) -> list[Accepted]:
        if any(len(call) != 1 for call in calls):
            raise ValueError("each accepted call has one name")
        return calls


def read_call(text: str) -> Call:
    """`mv(source='a', destination='b')` as a call. Raises ValueError for anything but a name and literals."""
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text[:80]!r} is not a call") from error
    if not (isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name)):
        raise ValueError(f"{text[:80]!r} is not a call of a function by its name")
    if any(keyword.arg is None for keyword in tree.keywords):
        raise ValueError(f"{text[:80]!r} holds arguments without a name behind **")
    try:
        args = tuple(ast.literal_eval(value) for value in tree.args)
        arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in tree.keywords}
    except TypeError as error:  # a list as the key of a dictionary
        raise ValueError(f"{text[:80]!r} holds what is no literal: {error}") from error
    return Call(name=tree.func.id, args=args, arguments=arguments)

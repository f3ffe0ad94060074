"""Arguments of a call against the schema of its tool: what the policy is told of the wrong ones."""

from __future__ import annotations

from typing import Any

import pytest

from steptool.core.errors import InputError
from steptool.core.types import Tool
from steptool.worlds.project.arguments import Arguments, without_foreign_patterns

LINE = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
SCHEMA = {
    "type": "object",
    "properties": {
        "count": {"type": "integer", "minimum": 1},
        "kind": {"enum": ["new", "used"]},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "lines": {"type": "array", "items": LINE},
        "code": {"type": "string", "pattern": "^[a-z]+$"},
    },
    "required": ["count"],
    "additionalProperties": False,
}


def arguments(schema: dict[str, Any]) -> Arguments:
    return Arguments(Tool(name="order", description="", parameters=schema), "tools.yaml")


@pytest.mark.parametrize(
    "given",
    [
        {"count": 1},
        {"count": 2.0, "kind": "used", "note": None, "lines": [{"title": "Dune"}], "code": "ab"},
        {"count": 1, "note": "", "lines": []},
    ],
)
def test_arguments_that_fit(given: dict[str, Any]) -> None:
    assert arguments(SCHEMA).problem(given) is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "count must be given"),
        ({"count": 0}, "count: 0 is less than the minimum of 1"),
        ({"count": "two"}, "count: \"two\" is not of type 'integer'"),
        ({"count": True}, "count: true is not of type 'integer'"),
        ({"count": 1, "kind": None}, "kind: null is not one of ['new', 'used']"),
        ({"count": 1, "lines": [{"title": "a"}, {}]}, "lines.1: title must be given"),
        ({"count": 1, "lines": [{"title": 7}]}, "lines.0.title: 7 is not of type 'string'"),
        ({"count": 1, "code": "A"}, "code: \"A\" does not match '^[a-z]+$'"),
        ({"count": 1, "colour": 3}, "there is no colour, use count, kind, note, lines, code"),
        ({"count": 0, "kind": 1}, "count: 0 is less than the minimum of 1; kind: 1 is not one of ['new', 'used']"),
    ],
)
def test_what_is_wrong_is_said_in_few_words(given: dict[str, Any], told: str) -> None:
    assert arguments(SCHEMA).problem(given) == told


def test_a_long_value_and_many_problems_are_cut() -> None:
    problem = arguments(SCHEMA).problem({"count": "x" * 10_000, "kind": 1, "code": 2, "lines": 3})
    assert problem is not None
    assert len(problem) < 700
    assert problem.count(";") == 2


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "object", "properties": {"a": {"type": "strig"}}}, "no JSON schema"),
        ({"type": "object", "properties": {"a": {"$ref": "https://example.org/a.json"}}}, "leads nowhere"),
        ({"type": "array"}, "arguments are an object"),
        ({"type": "object", "properties": {"a": {"pattern": r"\p{L}"}}}, "no JSON schema"),
    ],
)
def test_parameters_that_are_no_schema_are_refused_with_their_tool(schema: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=r"tools.yaml: tool 'order'") as caught:
        arguments(schema)
    assert problem in caught.value.found


def test_patterns_of_other_languages_are_left_out_and_all_else_stays() -> None:
    schema = {
        "type": "object",
        "properties": {
            "pattern": {"type": "string", "pattern": r"^\p{L}+$", "minLength": 1},
            "code": {"anyOf": [{"pattern": "^a$"}, {"pattern": "(?<name>a)"}]},
        },
    }
    assert without_foreign_patterns(schema) == {
        "type": "object",
        "properties": {
            "pattern": {"type": "string", "minLength": 1},
            "code": {"anyOf": [{"pattern": "^a$"}, {}]},
        },
    }

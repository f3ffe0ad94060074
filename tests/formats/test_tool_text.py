"""Schemas as a model reads them: whole while they fit, then shorter step by step.

schema                                             text
{"type": "string"}                                 city
{"type": "integer", "default": 3}, not required    days?: integer = 3
{"enum": ["c", "f"]}                               unit: c|f
an object with an object in it                     at: {lat: number, lon: number}
"""

from __future__ import annotations

from typing import Any

import pytest

from steptool.core.types import Tool
from steptool.formats.json_call import JsonCall
from steptool.formats.tool_macros import MAX_PARTS, SHORTER
from steptool.formats.tool_text import describe_tool, describe_tools, shortened_lines
from steptool.policies import tiny_model
from steptool.testing import task as make_task
from steptool.testing import tool

POINT = {
    "type": "object",
    "description": "A place on earth. In degrees.",
    "properties": {"lat": {"type": "number", "description": "degrees north"}, "lon": {"type": "number"}},
    "required": ["lat", "lon"],
}
NODE = {"type": "object", "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/Node"}}}
DEFS = {"Point": POINT, "Node": NODE, "a/b": {"type": "boolean"}}


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "string"}, "x"),
        ({}, "x: any"),
        (True, "x: any"),
        ({"type": "string", "format": "date-time"}, "x: string<date-time>"),
        ({"type": "integer", "default": 3}, "x: integer = 3"),
        ({"type": "string", "default": "é"}, 'x = "é"'),
        ({"type": "boolean", "default": False}, "x: boolean = false"),
        ({"type": "string", "description": " The\n name. "}, "x (The name.)"),
        ({"enum": ["c", "f"]}, "x: c|f"),
        ({"enum": ["in stock", "1", 1, None, True, "a|b", ""]}, 'x: in stock|"1"|1|null|true|"a|b"|""'),
        ({"const": "only"}, "x: only"),
        ({"const": None}, "x: null"),
        ({"type": ["string", "null"]}, "x: string|null"),
        ({"type": "integer", "nullable": True}, "x: integer|null"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}, "x: integer|null"),
        ({"oneOf": [{"type": "string", "description": "an id"}, {"type": "integer"}]}, "x: string (an id)|integer"),
        ({"allOf": [{"$ref": "#/$defs/a~1b"}]}, "x: boolean"),
        ({"allOf": [{"type": "string"}, {"enum": ["a"]}]}, "x: string & a"),
        ({"type": "array", "items": {"type": "string"}}, "x: string[]"),
        ({"type": "array"}, "x: any[]"),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, "x: (a|b)[]"),
        ({"type": "array", "items": {"type": "string", "description": "a tag"}}, "x: string[] (a tag)"),
        ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}]}, "x: [string, number]"),
        ({"type": "object"}, "x: object"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "x: {*: integer}"),
        ({"type": "object", "properties": {"a": {}, "b": {"type": "string"}}, "required": ["b"]}, "x: {a?: any, b}"),
        ({"$ref": "#/$defs/Point"}, "x: {lat: number (degrees north), lon: number} (A place on earth. In degrees.)"),
        ({"$ref": "#/$defs/Point", "description": "Here."}, "x: {lat: number (degrees north), lon: number} (Here.)"),
        ({"type": "array", "items": {"$ref": "#/$defs/Node"}}, "x: {name?, next?: Node}[]"),
        ({"$ref": "#/$defs/Gone"}, "x: Gone"),
        ({"type": "object", "properties": {"a": {}, "b": {}}, "anyOf": [{"required": ["a"]}]}, "x: {a?: any, b?: any}"),
        ({"type": "object", "oneOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}, "x: {a?: any}|{b?: any}"),
        ({"$ref": "#"}, "x: object"),
    ],
)
def test_an_argument_is_written_with_all_that_its_schema_says(schema: Any, text: str) -> None:
    parameters = {"type": "object", "properties": {"x": schema}, "required": ["x"], "$defs": DEFS}
    assert describe_tool(tool("f", "", parameters=parameters)) == f"f({text})"


def test_arguments_stand_behind_references_and_parts_too() -> None:
    """As `allOf`, as `oneOf`, and as a `$ref` of the whole."""
    parts = {"allOf": [{"$ref": "#/$defs/Point"}, {"properties": {"zoom": {"type": "integer"}}}], "$defs": DEFS}
    assert (
        describe_tool(tool("f", "", parameters=parts)) == "f(lat: number (degrees north), lon: number, zoom?: integer)"
    )
    spot = "lat: number (degrees north), lon: number"
    either = {
        "properties": {"x": {}},
        "oneOf": [{"$ref": "#/$defs/Point"}, {"properties": {"town": {}}}],
        "$defs": DEFS,
    }
    assert describe_tool(tool("f", "", parameters=either)) == f"f(x?: any, ({spot} | town?: any))"
    whole = {"$ref": "#/$defs/Point", "$defs": DEFS}
    assert describe_tool(tool("f", "", parameters=whole)) == "f(lat: number (degrees north), lon: number)"


def test_references_that_multiply_come_to_an_end() -> None:
    """Nine levels of nine references each: 387,420,489 parts."""
    each = lambda n: {"type": "object", "properties": {str(i): {"$ref": f"#/$defs/{n + 1}"} for i in range(9)}}  # noqa: E731
    laughs = {"properties": {"x": {"$ref": "#/$defs/0"}}, "$defs": {str(n): each(n) for n in range(9)}}
    assert len(describe_tool(tool("f", "", parameters=laughs))) < MAX_PARTS * 100


BIG = tool(
    "ship",
    "Ships an order to the place that it came from. It takes days.",
    parameters={
        "type": "object",
        "properties": {
            "to": POINT,
            "via": POINT,
            "unit": {"enum": [f"u{number}" for number in range(20)]},
            "note": {"type": "string", "description": "For the driver, e.g. a floor. No emojis."},
        },
        "required": ["to", "unit"],
    },
)
UNITS = "|".join(f"u{number}" for number in range(20))
CUT_UNITS = "u0|u1|u2|u3|u4|u5|u6|u7|..."
PLACE = "{lat: number, lon: number}"
FIRST = "Ships an order to the place that it came from."
WHOLE = f"{FIRST} It takes days."
STEPS = [
    f"ship(to: {PLACE} (A place on earth. In degrees.), via?: {PLACE} (A place on earth. In degrees.), "
    f"unit: {UNITS}, note? (For the driver, e.g. a floor. No emojis.)) - {WHOLE}",
    f"ship(to: {PLACE} (A place on earth.), via?: {PLACE} (A place on earth.), unit: {UNITS}, "
    f"note? (For the driver, e.g. a floor.)) - {WHOLE}",
    f"ship(to: {PLACE}, via?: {PLACE}, unit: {UNITS}, note?) - {WHOLE}",
    f"ship(to: {PLACE}, via?: {PLACE}, unit: {UNITS}, note?) - {FIRST}",
    f"ship(to: {PLACE}, via?: {PLACE}, unit: {CUT_UNITS}, note?) - {FIRST}",
    f"ship(to: {PLACE}, via?: object, unit: {CUT_UNITS}, note?) - {FIRST}",
    f"ship(to: object, via?: object, unit: {CUT_UNITS}, note?) - {FIRST}",
    f"ship(to: object, via?: object, unit: {CUT_UNITS}, note?) - Ships an order to the place that it came...",
    f"ship(to: object, via?: object, unit: {CUT_UNITS}, note?)",
    f"ship(to: object, unit: {CUT_UNITS})",
]


@pytest.mark.parametrize("level", range(len(SHORTER) + 1))
def test_each_step_leaves_out_a_little_more(level: int) -> None:
    text = describe_tool(BIG, level)
    assert text.replace(" (degrees north)", "") == STEPS[level]
    assert level == 0 or len(text) < len(describe_tool(BIG, level - 1))


def test_the_longest_text_that_fits_is_taken_for_all_tools_of_a_task() -> None:
    tools = (BIG, tool("ping", "Pings. Twice."))
    lengths = [len(describe_tools(tools, 10**6)[0])]
    for level in range(1, len(SHORTER) + 1):
        text, taken = describe_tools(tools, lengths[-1] - 1)
        assert taken == level
        assert text == f"{describe_tool(BIG, level)}\n{describe_tool(tools[1], level)}"
        lengths.append(len(text))
        assert describe_tools(tools, len(text)) == (text, level)
    assert describe_tools(tools, 1) == (text, len(SHORTER)), "no tool is left out"


def test_what_was_shortened_is_said() -> None:
    tools = (BIG, tool("ping", "Pings. Twice."))
    assert shortened_lines(tools, 512) == []
    whole = len(describe_tools(tools, 10**6)[0])
    assert shortened_lines(tools, (whole - 1) // 3) == list(SHORTER[:1])
    lines = shortened_lines(tools, 1)
    assert lines[:-1] == list(SHORTER)
    assert "the 2 tools still take" in lines[-1]
    assert "raise format.tools_budget" in lines[-1]


def test_the_default_budget_leaves_room_for_an_attempt() -> None:
    """512 of `sample.max_tokens` 1024, in a prompt of ten tools with long schemas."""
    tokenizer = tiny_model.tokenizer()
    chat = JsonCall(JsonCall.Config(), tokenizer)
    tools = tuple(Tool(name=f"ship_{n}", description=BIG.description, parameters=BIG.parameters) for n in range(10))
    offered = make_task("t").model_copy(update={"tools": tools})
    system = tokenizer.decode(chat.prompt(offered))
    assert all(f"ship_{n}(" in system for n in range(10))
    assert len(system) < 512 * 3 + 400
    assert chat.shortened(offered)
    assert chat.shortened(make_task("t")) == []

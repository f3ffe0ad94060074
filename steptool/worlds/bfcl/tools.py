"""The benchmark's functions as tools: its names of types, which are Python's or Java's, become those of JSON schema."""

from __future__ import annotations

from typing import Any

from steptool.core.types import Tool
from steptool.worlds.bfcl.records import FunctionRow

TYPES = {
    **dict.fromkeys(("integer", "byte", "short", "long", "Bigint"), "integer"),
    **dict.fromkeys(("number", "float", "double"), "number"),
    **dict.fromkeys(("string", "String", "char", "any", "Any"), "string"),
    **dict.fromkeys(("boolean", "bool", "Boolean"), "boolean"),
    **dict.fromkeys(("array", "list", "tuple", "ArrayList", "Array", "Queue", "Stack", "Set"), "array"),
    **dict.fromkeys(("dict", "object", "HashMap", "Hashtable"), "object"),
}
"""A type that stands nowhere here is a string, as for the benchmark."""
SCHEMA = ("enum", "required", "description", "default", "minItems", "maxItems", "minimum", "maximum")
"""Keywords that are kept."""


def tool_of(function: FunctionRow, hint: str = "") -> Tool:
    """`hint`: a sentence behind its description."""
    parameters = {"type": "object", "properties": {}, **schema_of(function.parameters)}
    return Tool(name=function.name, description=f"{function.description}{hint}", parameters=parameters)


def schema_of(value: dict[str, Any]) -> dict[str, Any]:
    """JSON schema of one parameter, or of an object of them."""
    found: dict[str, Any] = {"type": TYPES.get(str(value.get("type", "string")), "string")}
    found |= {key: value[key] for key in SCHEMA if key in value}
    if not isinstance(found.get("required", []), list):  # a few descriptions mark the parameter itself
        del found["required"]
    if isinstance(properties := value.get("properties"), dict):
        found["properties"] = {name: schema_of(each) for name, each in properties.items()}
    for key in ("items", "additionalProperties"):
        if isinstance(value.get(key), dict):
            found[key] = schema_of(value[key])
    return found

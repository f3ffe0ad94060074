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
SYNTAX = {"python": "Python 3", "java": "Java 8 SDK", "javascript": "JavaScript"}
SCHEMA = ("enum", "required", "description", "default", "minItems", "maxItems", "minimum", "maximum")
"""Keywords that are kept."""


def tool_of(function: FunctionRow) -> Tool:
    parameters = {"type": "object", "properties": {}, **schema_of(function.parameters)}
    return Tool(name=function.name, description=function.description, parameters=parameters)


def hinted(function: FunctionRow, language: str = "python") -> FunctionRow:
    """As the benchmark shows a function: its language is named, and what is not of Python is given as text."""
    description = f"{function.description} Note that the provided function is in {SYNTAX[language]} syntax."
    parameters = function.parameters
    if language != "python":
        spoken = "Java" if language == "java" else "JavaScript"
        properties = {name: _as_text(each, spoken) for name, each in parameters["properties"].items()}
        parameters = {**parameters, "properties": properties}
    return FunctionRow(name=function.name, description=description, parameters=parameters)


def _as_text(parameter: dict[str, Any], spoken: str) -> dict[str, Any]:
    kind, said = parameter["type"], parameter.get("description", "")
    if kind == "any":
        said += f" This parameter can be of any type of {spoken} object in string representation."
    else:
        said += f" This is {spoken} {kind} type parameter in string representation."
    if "items" in parameter:
        said += f" The list elements are of type {parameter['items']['type']}; they are not in string representation."
    return {"type": "string", "description": said}


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

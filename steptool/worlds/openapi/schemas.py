"""Schemas of an OpenAPI document as JSON Schema 2020-12, whole: references are resolved, `allOf` is merged where that
changes nothing, and what OpenAPI 3.0 writes in its own way (nullable, exclusiveMinimum: true) is rewritten.

A schema that refers to itself stays a reference, into the `$defs` of the tool's parameters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from steptool.core.errors import InputError
from steptool.worlds.openapi.document import Document

MAX_PARTS = 20_000
"""Schemas within one tool's parameters, references resolved."""
OF_SCHEMAS = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
"""Keywords that hold schemas by name."""
OF_OTHERS = {"discriminator", "xml", "externalDocs", "title", "nullable", "deprecated", "readOnly", "writeOnly"}
"""Keywords that say nothing about what a value must be. Titles repeat names, and cost tokens."""
NO_CHECKS = {"description", "default", "example", "examples"}
MERGED = {"properties", "required", "type", *NO_CHECKS}
"""Keywords of the parts of an `allOf` that becomes one object."""


class Schemas:
    """Those of one tool, which share their `defs`. `where` names the tool in errors."""

    def __init__(self, document: Document, where: str) -> None:
        self._document, self._where = document, where
        self._names: dict[str, str] = {}
        self._parts = 0

    def read(self, schema: Any) -> Any:
        """As JSON Schema, for a request: properties that are `readOnly` are left out.

        Raises InputError for a reference that leads nowhere, and for a schema that has no end of parts.
        """
        return self._read(schema, ())

    @property
    def defs(self) -> dict[str, Any]:
        """What the schemas that were read refer to, by name."""
        found: dict[str, Any] = {}
        while missing := [name for name in self._names.values() if name not in found]:
            references = {name: reference for reference, name in self._names.items()}
            found |= {name: self._read({"$ref": references[name]}, ()) for name in missing}
        return found

    def _read(self, schema: Any, within: tuple[str, ...]) -> Any:
        """`within`: the references that are being resolved."""
        self._parts += 1
        if self._parts > MAX_PARTS:
            fix = "leave this operation out: name it in world.leave_out"
            raise InputError(f"has a schema of more than {MAX_PARTS:,} parts", where=self._where, fix=fix)
        if not isinstance(schema, dict):
            return schema
        if "$ref" in schema:
            return self._referred(schema, within)
        read = {key: self._part(key, value, within) for key, value in schema.items() if _is_kept(key)}
        if isinstance(read.get("properties"), dict):
            read |= self._without_read_only(schema, read)
        if isinstance(read.get("allOf"), list):
            read = _merged([*read["allOf"], {key: read[key] for key in read if key != "allOf"}]) or read
        if "example" in read:
            read.setdefault("examples", [read.pop("example")])
        return _as_2020(read, bool(schema.get("nullable"))) if self._document.is_3_0 else read

    def _referred(self, schema: dict[str, Any], within: tuple[str, ...]) -> Any:
        reference = schema["$ref"]
        target = self._document.lookup(reference)
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        if reference in within:
            return {"$ref": f"#/$defs/{self._name(reference)}"}
        read = self._read(target, (*within, reference))
        return {**read, **self._read(beside, within)} if isinstance(read, dict) and beside else read

    def _part(self, key: str, value: Any, within: tuple[str, ...]) -> Any:
        if key in OF_SCHEMAS and isinstance(value, dict):
            return {name: self._read(part, within) for name, part in value.items()}
        if key in ("allOf", "anyOf", "oneOf", "prefixItems") and isinstance(value, list):
            return [self._read(part, within) for part in value]
        if key in ("items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else"):
            return self._read(value, within)
        return value

    def _without_read_only(self, schema: dict[str, Any], read: dict[str, Any]) -> dict[str, Any]:
        left = {name for name, part in schema["properties"].items() if isinstance(part, dict) and part.get("readOnly")}
        kept = {name: part for name, part in read["properties"].items() if name not in left}
        required = [name for name in read.get("required", []) if name not in left]
        return {"properties": kept} | ({"required": required} if "required" in read else {})

    def _name(self, reference: str) -> str:
        if reference not in self._names:
            name = re.sub(r"[^\w.-]", "_", reference.rpartition("/")[2]) or "schema"
            while name in self._names.values():
                name += "_"
            self._names[reference] = name
        return self._names[reference]


def _is_kept(key: str) -> bool:
    return key not in OF_OTHERS and not key.startswith("x-")


def _merged(parts: Sequence[Any]) -> dict[str, Any] | None:
    """One schema that accepts what all of these accept, None where it would be another."""
    parts = [part for part in parts if part != {}]
    if not all(isinstance(part, dict) for part in parts):
        return None
    checking = [part for part in parts if set(part) - NO_CHECKS]
    whole: dict[str, Any] = {}
    for part in parts:
        if len(checking) > 1 and not set(part) <= MERGED:
            return None
        if part.get("type", "object") != whole.get("type", part.get("type", "object")):
            return None
        ours, theirs = whole.get("properties", {}), part.get("properties", {})
        if any(ours[name] != theirs[name] for name in set(ours) & set(theirs)):
            return None
        both = {"properties": ours | theirs} if ours or theirs else {}
        needed = list(dict.fromkeys([*whole.get("required", []), *part.get("required", [])]))
        whole = {**whole, **part, **both} | ({"required": needed} if needed else {})
    return whole


def _as_2020(schema: dict[str, Any], nullable: bool) -> dict[str, Any]:
    """What OpenAPI 3.0 writes in a way of its own."""
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(schema.get(exclusive), bool) and schema.pop(exclusive) and bound in schema:
            schema[exclusive] = schema.pop(bound)
    if not nullable:
        return schema
    if "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]} if schema else schema
    if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]
    return {**schema, "type": [schema["type"], "null"]}

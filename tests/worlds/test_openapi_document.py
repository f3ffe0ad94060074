"""From an OpenAPI document to tools: names, one flat schema of arguments, references, what is refused and why.

document (3.0)                                          tool
GET /books/{id}?id=…   operationId getBook              getBook(id, id_query)
schema {type: string, nullable: true}                   {"type": ["string", "null"]}
schema Part, whose parts are Parts                      {"$ref": "#/$defs/Part"}
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from steptool.core.errors import InputError
from steptool.worlds.openapi.document import Document, fetch
from steptool.worlds.openapi.operations import Operation, operations_of
from steptool.worlds.openapi.schemas import MAX_PARTS
from steptool.worlds.openapi.toolbox import OpenApiToolbox
from tests.worlds.openapi_service import app, serving


def document(paths: Any, version: str = "3.1.0", **more: Any) -> Document:
    whole = {"openapi": version, "servers": [{"url": "http://books.test/v1"}], "paths": paths, **more}
    return Document(json.dumps(whole), "books.json")


def operations(
    made: Document, allow: list[str] | None = None, leave_out: list[str] | None = None
) -> dict[str, Operation]:
    return operations_of(made, base_url=None, allow=allow or [], leave_out=leave_out or [])


def get(schema: Any, **more: Any) -> dict[str, Any]:
    """The paths of a document with one operation, of the argument `x`."""
    return {"/a": {"get": {"parameters": [{"name": "x", "in": "query", "schema": schema}], **more}}}


def schema_of_x(schema: Any, version: str = "3.1.0", **schemas: Any) -> dict[str, Any]:
    """The parameters of the tool, whose one argument x has this schema."""
    made = operations(document(get(schema), version, components={"schemas": schemas}))
    return made["get_a"].tool.parameters


def x(schema: Any, version: str = "3.1.0", **schemas: Any) -> Any:
    return schema_of_x(schema, version, **schemas)["properties"]["x"]


# Names, and which are offered


def test_a_tool_is_called_as_its_operation_or_by_method_and_path() -> None:
    paths = {
        "/books/{id}": {"get": {"operationId": "getBook", "parameters": [{"name": "id", "in": "path"}]}},
        "/books/{id}/lines/{line-no}": {
            "parameters": [{"name": "id", "in": "path"}, {"name": "line-no", "in": "path"}],
            "get": {},
        },
        "/": {"get": {}},
    }
    assert list(operations(document(paths))) == ["getBook", "get_books_by_id_lines_by_line_no", "get"]


PATHS = {
    "/orders": {"get": {"operationId": "orders"}, "post": {"operationId": "createOrder"}},
    "/orders/old": {"get": {"operationId": "old", "deprecated": True}, "head": {}, "delete": {}},
}


@pytest.mark.parametrize(
    ("allow", "leave_out", "offered"),
    [
        ([], [], ["orders", "head_orders_old"]),
        (["createOrder"], [], ["orders", "createOrder", "head_orders_old"]),
        (["POST /orders", "old"], ["HEAD /orders/old"], ["orders", "createOrder", "old"]),
        (["createOrder"], ["createOrder", "orders"], ["head_orders_old"]),
    ],
)
def test_only_what_reads_is_offered_unless_more_is_allowed(
    allow: list[str], leave_out: list[str], offered: list[str]
) -> None:
    assert list(operations(document(PATHS), allow, leave_out)) == offered


def test_the_description_is_one_line_of_summary_and_description() -> None:
    made = operations(
        document({"/a": {"get": {"summary": "All\nof a.", "description": "Every one."}}, "/b": {"get": {}}})
    )
    assert [each.tool.description for each in made.values()] == ["All of a. Every one.", "GET /b"]


# Arguments


def test_arguments_of_all_places_stand_side_by_side_and_know_where_they_go() -> None:
    """Those of the operation replace those of its path; a name that is taken gets its place at the end."""
    paths = {
        "/books/{id}": {
            "parameters": [
                {"name": "lang", "in": "query", "schema": {"type": "integer"}},
                {
                    "name": "id",
                    "in": "path",
                    "required": True,
                    "description": "which book",
                    "schema": {"type": "string"},
                },
            ],
            "put": {
                "parameters": [
                    {"name": "id", "in": "query", "schema": {"type": "integer"}},
                    {
                        "name": "lang",
                        "in": "query",
                        "required": True,
                        "schema": {"enum": ["en", "fr"], "default": "en"},
                    },
                    {"name": "X-Trace", "in": "header", "schema": {"type": "string", "format": "uuid"}},
                    {"name": "Accept", "in": "header", "schema": {"type": "string"}},
                    {"name": "visit", "in": "cookie", "schema": {"type": "string"}},
                ],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "properties": {
                                    "id": {"type": "string"},
                                    "title": {"type": "string", "title": "Title", "description": "as printed"},
                                    "made": {"type": "string", "readOnly": True},
                                },
                                "required": ["title", "made"],
                            }
                        }
                    },
                },
            },
        }
    }
    (operation,) = operations(document(paths), ["PUT /books/{id}"]).values()
    assert operation.tool.parameters == {
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "which book"},
            "lang": {"enum": ["en", "fr"], "default": "en"},
            "id_query": {"type": "integer"},
            "X-Trace": {"type": "string", "format": "uuid"},
            "visit": {"type": "string"},
            "id_body": {"type": "string"},
            "title": {"type": "string", "description": "as printed"},
        },
        "required": ["id", "lang", "title"],
        "additionalProperties": False,
    }
    assert [(each.name, each.place, each.key) for each in operation.arguments] == [
        ("id", "path", "id"),
        ("lang", "query", "lang"),
        ("id_query", "query", "id"),
        ("X-Trace", "header", "X-Trace"),
        ("visit", "cookie", "visit"),
        ("id_body", "body", "id"),
        ("title", "body", "title"),
    ]


@pytest.mark.parametrize(
    ("body", "properties"),
    [
        (
            {"required": True, "content": {"application/json": {"schema": {"type": "array"}}}},
            {"body": {"type": "array"}},
        ),
        (
            {"content": {"application/json": {"schema": {"properties": {"a": {}}, "required": ["a"]}}}},
            {"body": {"properties": {"a": {}}, "required": ["a"]}},
        ),
        ({"content": {"application/json": {"schema": {"properties": {"a": {}}}}}}, {"a": {}}),
        (
            {"content": {"application/xml": {}, "application/vnd.books+json": {"schema": {"properties": {"a": {}}}}}},
            {"a": {}},
        ),
        (
            {"content": {"application/x-www-form-urlencoded": {"schema": {"properties": {"a": {"type": "string"}}}}}},
            {"a": {"type": "string"}},
        ),
        ({"content": {"text/plain": {"schema": {"type": "string"}}}}, {"body": {"type": "string"}}),
        (
            {"content": {"application/json": {"schema": {"oneOf": [{"type": "object"}, {"type": "null"}]}}}},
            {"body": {"oneOf": [{"type": "object"}, {"type": "null"}]}},
        ),
    ],
)
def test_a_body_gives_its_properties_or_is_one_argument(body: Any, properties: Any) -> None:
    (operation,) = operations(document({"/a": {"post": {"requestBody": body}}}), ["POST /a"]).values()
    assert operation.tool.parameters["properties"] == properties


def test_a_body_that_no_policy_can_write_is_refused() -> None:
    body = {"content": {"application/octet-stream": {}}}
    with pytest.raises(InputError, match=r"POST /a: takes a body of application/octet-stream") as caught:
        operations(document({"/a": {"post": {"requestBody": body}}}), ["POST /a"])
    assert caught.value.fix == "take it out of world.allow"


# Schemas


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "string", "nullable": False}, {"type": "string"}),
        ({"type": "string", "nullable": True, "enum": ["a"]}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"allOf": [{"$ref": "#/components/schemas/A"}], "nullable": True}, {"type": ["string", "null"]}),
        (
            {"nullable": True, "oneOf": [{"type": "string"}, {"type": "integer"}]},
            {"anyOf": [{"oneOf": [{"type": "string"}, {"type": "integer"}]}, {"type": "null"}]},
        ),
        ({"type": "number", "minimum": 0, "exclusiveMinimum": True}, {"type": "number", "exclusiveMinimum": 0}),
        ({"type": "number", "maximum": 9, "exclusiveMaximum": False}, {"type": "number", "maximum": 9}),
        ({"type": "string", "example": "Dune"}, {"type": "string", "examples": ["Dune"]}),
    ],
)
def test_what_3_0_writes_in_its_own_way_is_rewritten(written: Any, read: Any) -> None:
    assert x(written, "3.0.3", A={"type": "string"}) == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"type": ["string", "null"], "exclusiveMinimum": 3}, {"type": ["string", "null"], "exclusiveMinimum": 3}),
        ({"$ref": "#/components/schemas/A", "description": "mine"}, {"type": "string", "description": "mine"}),
        ({"items": {"$ref": "#/components/schemas/A"}}, {"items": {"type": "string"}}),
        ({"anyOf": [{"$ref": "#/components/schemas/A"}, {"const": 1}]}, {"anyOf": [{"type": "string"}, {"const": 1}]}),
        ({"type": "object", "properties": {"title": {"type": "string", "title": "T"}}, "x-y": 1, "xml": {}},
         {"type": "object", "properties": {"title": {"type": "string"}}}),
        ({"type": "string", "pattern": r"^\p{L}+$"}, {"type": "string"}),
        ({"const": {"title": "kept", "$ref": "kept"}}, {"const": {"title": "kept", "$ref": "kept"}}),
        (True, {}),
    ],
)  # fmt: skip
def test_schemas_are_read_whole(written: Any, read: Any) -> None:
    assert x(written, A={"type": "string", "title": "A"}) == read


@pytest.mark.parametrize(
    ("parts", "read"),
    [
        (
            [{"$ref": "#/components/schemas/A"}, {"properties": {"b": {"type": "integer"}}, "required": ["b"]}],
            {
                "type": "object",
                "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
            },
        ),
        ([{"type": "string"}, {"minLength": 3}], {"allOf": [{"type": "string"}, {"minLength": 3}]}),
        (
            [{"properties": {"a": {"type": "string"}}}, {"properties": {"a": {"maxLength": 3}}}],
            {"allOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"a": {"maxLength": 3}}}]},
        ),
        ([{"type": "integer", "minimum": 3}], {"type": "integer", "minimum": 3}),
    ],
)
def test_all_of_becomes_one_object_where_that_means_the_same(parts: Any, read: Any) -> None:
    a = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    assert x({"allOf": parts}, A=a) == read


def test_a_schema_that_holds_itself_becomes_a_definition() -> None:
    part = {
        "type": "object",
        "properties": {"parts": {"type": "array", "items": {"$ref": "#/components/schemas/A~1Part"}}},
    }
    assert schema_of_x({"$ref": "#/components/schemas/A~1Part"}, **{"A/Part": part}) == {
        "type": "object",
        "properties": {
            "x": {"type": "object", "properties": {"parts": {"type": "array", "items": {"$ref": "#/$defs/A_1Part"}}}}
        },
        "additionalProperties": False,
        "$defs": {
            "A_1Part": {
                "type": "object",
                "properties": {"parts": {"type": "array", "items": {"$ref": "#/$defs/A_1Part"}}},
            }
        },
    }


def test_two_that_hold_each_other_become_definitions() -> None:
    a = {"type": "object", "properties": {"b": {"$ref": "#/components/schemas/B"}}}
    b = {"type": "object", "properties": {"a": {"$ref": "#/components/schemas/A"}}}
    read = schema_of_x({"type": "array", "items": {"$ref": "#/components/schemas/B"}}, A=a, B=b)
    assert read["properties"]["x"]["items"]["properties"]["a"]["properties"]["b"] == {"$ref": "#/$defs/B"}
    assert set(read["$defs"]) == {"B"}


def test_parameters_and_bodies_may_be_references_too() -> None:
    components = {
        "parameters": {"Id": {"name": "id", "in": "path", "schema": {"$ref": "#/components/schemas/Id"}}},
        "schemas": {"Id": {"type": "integer"}},
        "requestBodies": {"Book": {"required": True, "content": {"application/json": {"schema": {"type": "array"}}}}},
    }
    operation = {
        "parameters": [{"$ref": "#/components/parameters/Id"}],
        "requestBody": {"$ref": "#/components/requestBodies/Book"},
    }
    (made,) = operations(document({"/a/{id}": {"put": operation}}, components=components), ["PUT /a/{id}"]).values()
    assert made.tool.parameters["properties"] == {"id": {"type": "integer"}, "body": {"type": "array"}}


def test_a_parameter_may_be_json() -> None:
    parameter = {"name": "filter", "in": "query", "content": {"application/json": {"schema": {"type": "object"}}}}
    (made,) = operations(document({"/a": {"get": {"parameters": [parameter]}}})).values()
    assert made.arguments[0].is_json


# Servers


@pytest.mark.parametrize(
    ("servers", "where", "url"),
    [
        ([{"url": "http://a.test/v1"}], "books.json", "http://a.test/v1"),
        ([{"url": "http://b.test/{v}", "variables": {"v": {"default": "v2"}}}], "books.json", "http://b.test/v2"),
        ([{"url": "/v1"}], "https://c.test/docs/openapi.json", "https://c.test/v1"),
        ([], "https://c.test/docs/openapi.json", "https://c.test/"),
    ],
)  # fmt: skip
def test_the_document_says_where_the_service_is(servers: Any, where: str, url: str) -> None:
    made = Document(json.dumps({"openapi": "3.0.0", "paths": {"/a": {"get": {}}}, "servers": servers}), where)
    assert operations(made)["get_a"].server == url


def test_operation_and_path_may_have_a_server_of_their_own_and_the_setting_overrides_all() -> None:
    ours, theirs = [{"url": "http://path.test"}], [{"url": "http://operation.test"}]
    made = document({"/a": {"servers": ours, "get": {}, "head": {"servers": theirs}}, "/b": {"get": {}}})
    assert [each.server for each in operations(made).values()] == [
        "http://path.test",
        "http://operation.test",
        "http://books.test/v1",
    ]
    overridden = operations_of(made, base_url="http://here.test", allow=[], leave_out=[])
    assert {each.server for each in overridden.values()} == {"http://here.test"}


# Files, and what is refused


def test_yaml_says_the_same_as_json(tmp_path: Path) -> None:
    whole = app.openapi()
    file = tmp_path / "openapi.yaml"
    YAML(typ="safe").dump(whole, file)
    assert Document(fetch(str(file)), str(file)).content == json.loads(json.dumps(whole))


def test_dates_and_numbers_of_yaml_are_texts() -> None:
    text = "openapi: 3.0.1\npaths: {/a: {get: {responses: {200: {description: ok}}, x-since: 2024-01-02}}}\n"
    operation = Document(text, "a.yaml").content["paths"]["/a"]["get"]
    assert operation == {"responses": {"200": {"description": "ok"}}, "x-since": "2024-01-02"}


def test_a_document_may_be_at_an_address() -> None:
    with serving(app) as url:
        assert Document(fetch(f"{url}/openapi.json"), url).content["info"]["title"] == "Books"
        with pytest.raises(InputError, match="404 Not Found"):
            fetch(f"{url}/nothing.json")
    with pytest.raises(InputError, match=rf"{url}/openapi.json: cannot be read: .*"):
        fetch(f"{url}/openapi.json")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "it does not hold an object"),
        ("[1]", "it does not hold an object"),
        ('{"openapi": "3.0.0", "paths": {', "neither JSON nor YAML"),
        ("a: b: c", "neither JSON nor YAML"),
        ("a: &a [*a]", "neither JSON nor YAML"),
        ("{}", "has no `openapi: 3"),
        ('{"swagger": "2.0", "paths": {}}', "is of version 2.0"),
        ('{"openapi": "4.0.0", "paths": {}}', "is of version 4.0.0"),
        ('{"openapi": "3.0.0"}', "has no `paths`"),
    ],
)
def test_what_is_no_openapi_3_is_refused(text: str, found: str) -> None:
    with pytest.raises(InputError) as caught:
        Document(text, "books.yaml")
    assert caught.value.where == "books.yaml"
    assert found in caught.value.found
    assert caught.value.fix


def test_version_2_is_told_how_it_becomes_3() -> None:
    with pytest.raises(InputError) as caught:
        Document('{"swagger": "2.0"}', "books.json")
    assert "swagger2openapi" in str(caught.value.fix)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        fetch(str(tmp_path / "none.yaml"))
    with pytest.raises(InputError, match="cannot be read"):
        fetch(str(tmp_path))
    (tmp_path / "latin.yaml").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match="not written in UTF-8"):
        fetch(str(tmp_path / "latin.yaml"))


@pytest.mark.parametrize(
    ("paths", "allow", "found", "fix"),
    [
        (get({"$ref": "#/components/schemas/None"}), [], "$ref #/components/schemas/None leads nowhere", "bundle"),
        (get({"$ref": "other.yaml#/A"}), [], "$ref 'other.yaml#/A' leads out of the document", "bundle"),
        ({"/a": {"$ref": "#/paths/~1b"}, "/b": {"$ref": "#/paths/~1a"}}, [], "refers to itself", "mend"),
        ({"/a": {"get": []}}, [], "holds [] where an object stands", "mend"),
        ({"/a/{id}": {"get": {}}}, [], "no parameter says what {id} of its path is", "describe"),
        ({"/a": {"get": {"operationId": "a"}}, "/b": {"get": {"operationId": "a"}}}, [],
         "GET /a and GET /b are both called 'a'", "operationId"),
        ({"/a": {"post": {}}}, [], "none of its 1 operations only reads", "world.allow"),
        ({"/a": {"get": {}}}, ["POST /a"], "has no operation 'POST /a'", "did you mean 'GET /a'"),
        ({"/a": {"get": {}}}, ["zzz"], "has no operation 'zzz'", "operationId"),
        ({}, [], "none of its 0 operations", "world.allow"),
    ],
)  # fmt: skip
def test_operations_that_cannot_be_tools_are_named(paths: Any, allow: list[str], found: str, fix: str) -> None:
    with pytest.raises(InputError) as caught:
        operations(document(paths), allow)
    assert "books.json" in str(caught.value.where)
    assert found in caught.value.found
    assert fix in str(caught.value.fix)


def test_a_service_that_is_nowhere_is_told_of() -> None:
    made = Document(json.dumps({"openapi": "3.0.0", "paths": {"/a": {"get": {}}}}), "books.json")
    with pytest.raises(InputError, match="does not say where the service is") as caught:
        operations(made)
    assert caught.value.fix == "set world.base_url in params.yaml to its address"


def test_a_schema_that_grows_without_end_is_refused() -> None:
    """Each of thirty schemas holds the next one twice."""
    schemas = {
        f"S{n}": {"type": "object", "properties": {side: {"$ref": f"#/components/schemas/S{n + 1}"} for side in "ab"}}
        for n in range(30)
    }
    with pytest.raises(InputError, match=f"has a schema of more than {MAX_PARTS:,} parts") as caught:
        x({"$ref": "#/components/schemas/S0"}, **schemas, S30={"type": "string"})
    assert "world.leave_out" in str(caught.value.fix)


JUNK: tuple[Any, ...] = (None, 7, "text", [], {}, [7], {"a": 7}, {"$ref": "#/info"}, {"$ref": 7}, True, "\u202e{x}")


def test_a_document_that_is_written_wrongly_is_refused_and_crashes_nothing() -> None:
    """Any part of a good document is replaced by what may not stand there."""
    whole, chance = json.dumps(app.openapi()), random.Random(18)
    refused = 0
    for _ in range(400):
        broken = json.loads(whole)
        place, key = chance.choice(list(places(broken)))
        place[key] = chance.choice(JUNK)
        try:
            OpenApiToolbox(Document(json.dumps(broken), "books.json"), allow=["createOrder", "putPart"])
        except InputError as error:
            assert error.fix  # noqa: PT017 - not all of them are refused
            refused += 1
    assert refused > 50


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Where something stands in a document: its container, and its key there."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])

"""The layout of a pack of recordings: two files, JSON lines, packed.

queries.jsonl.gz          one request a line: query_id, subset, query, api_list, relevant_apis
tool_responses.jsonl.gz   one call a line: name, arguments, and the replies to it, commonest first
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator

from steptool.core.storage import parse_json, parse_record, parse_text, read_lines
from steptool.core.types import Tool
from steptool.worlds.toolbench.names import Api, category, standardize
from steptool.worlds.toolbench.replies import Recorded
from steptool.worlds.toolbench.requests import Function, Request

VARIABLE = "STEPTOOL_RECORDED"
QUERIES, REPLIES = "queries.jsonl.gz", "tool_responses.jsonl.gz"
Row = TypeVar("Row", bound=BaseModel)


JSON_TYPES = ("string", "number", "integer", "boolean", "array", "object", "null")


def _json_type(value: object) -> object:
    """ToolBench's own files spell a type STRING or Number."""
    if isinstance(value, str) and value.strip().lower() not in JSON_TYPES:
        raise ValueError(f"{value[:80]!r} is no type of JSON; these are: {', '.join(JSON_TYPES)}")
    return value.strip().lower() if isinstance(value, str) else value


class _Parameter(BaseModel):
    name: str
    type: Annotated[str, BeforeValidator(_json_type)]
    required: bool
    description: str = ""


class _Api(BaseModel):
    name: str
    description: str
    category: str
    tool: str = ""
    parameters: list[_Parameter]
    parameters_hidden_from_model: bool = False
    not_shown_to_model: bool = False
    full_description: str = ""
    response_schema: Any = None

    def as_tool(self) -> Tool:
        """The function as the recorded policies saw it."""
        shown = [] if self.parameters_hidden_from_model else self.parameters
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {p.name: {"type": p.type, "description": p.description} for p in shown},
            "required": list(dict.fromkeys(p.name for p in shown if p.required)),
        }
        return Tool(name=self.name, description=self.description, parameters=schema, category=self.category)

    def as_function(self) -> Function:
        about = {
            "tool": self.tool,
            "function": self.name,
            "description": self.full_description or self.description,
            "parameters": [each.model_dump() for each in self.parameters],
            "reply": self.response_schema,
        }
        api = api_of(self.category, self.tool, self.name)
        return Function(api, self.as_tool(), about, is_shown=not self.not_shown_to_model)


class _Relevant(BaseModel):
    name: str


class _Query(BaseModel):
    query_id: str
    subset: str
    query: str
    api_list: list[_Api]
    relevant_apis: list[_Relevant]

    def as_request(self) -> Request:
        return Request(
            id=self.query_id,
            subset=self.subset,
            query=self.query,
            functions=tuple(api.as_function() for api in self.api_list),
            relevant=tuple(api.name for api in self.relevant_apis),
        )


class _Reply(BaseModel):
    text: str
    error: Literal["none", "soft", "hard", "empty", "hallucinated"]


class _Recording(BaseModel):
    name: str
    category: str = ""
    tool: str = ""
    arguments: str
    responses: list[_Reply]


def api_of(kind: str, tool: str, name: str) -> Api:
    """The function that a pack calls `name`, which ends in `_for_<tool>`."""
    standard = standardize(tool)
    return Api(category(kind), standard, name.removesuffix(f"_for_{standard}"))


def requests(path: Path) -> Iterator[Request]:
    """The requests of a file such as queries.jsonl.gz. Raises DataError where it is missing or broken."""
    return (row.as_request() for row in _read(path, _Query))


def recordings(path: Path) -> Iterator[tuple[Api, str, Recorded]]:
    """The calls of a file such as tool_responses.jsonl.gz: function, its name, and arguments with the commonest reply.

    A call whose arguments are no JSON object cannot be made again and is left out. Raises DataError where the file is
    missing or broken.
    """
    for row in _read(path, _Recording):
        arguments = _arguments(row.arguments)
        if row.responses and arguments is not None:
            first = row.responses[0]
            error = None if first.error == "none" else first.error
            yield api_of(row.category, row.tool, row.name), row.name, Recorded(arguments, first.text, error)


def _arguments(text: str) -> dict[str, Any] | None:
    try:
        value = parse_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _read(path: Path, row: type[Row]) -> Iterator[Row]:
    restore = "restore the file from where it came"
    lines = read_lines(path, missing=f"point world.path or {VARIABLE} at the pack", broken=restore)
    for number, line in enumerate(lines, start=1):
        value = parse_text(line, str(path), line=number, fix=restore)
        yield parse_record(value, row, where=f"{path}:{number}", fix=restore)

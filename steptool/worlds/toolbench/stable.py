"""StableToolBench's layout: three folders.

    solvable_queries/test_instruction/G1_tool.json      the requests of a subset, a list
    tools/Data/theclique.json                           what a tool is, with its functions
    tool_response_cache/Data/theclique_for_Data/songkick_artist.json     the replies of one function:
                                                        arguments, as Python prints them → {"error": …, "response": …}

Files are found by listing these folders, never by a name that a call or a request gives.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter

from steptool.core.errors import DataError, reason
from steptool.core.storage import parse_json, parse_record, read_bounded
from steptool.core.types import SUBSETS, Tool
from steptool.worlds.toolbench.names import Api, category, function, standardize
from steptool.worlds.toolbench.replies import Recorded, error_kind, written
from steptool.worlds.toolbench.requests import Function, Request

QUERIES, TOOLS, CACHE = "solvable_queries", "tools", "tool_response_cache"
OF_SUBSETS = "test_instruction"
MOST_BYTES = 256 << 20
"""Of one file."""
LONGEST_KEY = 100_000
"""Characters of the arguments of one recorded call; longer ones are left out."""
MAX_DESCRIPTION = 256
"""Characters of a description that a model is shown."""
RESTORE = "restore the file from where it came, or move it out of the folder"
_TYPES = {"NUMBER": "integer", "STRING": "string", "BOOLEAN": "boolean"}
"""Types as the files have them → as a model is shown them; any other is a string."""

Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
Row = TypeVar("Row", bound=BaseModel)


class Parameter(BaseModel):
    name: str
    type: Text = ""
    description: Text = ""
    default: Any = None

    def shown(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"type": _TYPES.get(self.type, "string")}
        shown["description"] = self.description[:MAX_DESCRIPTION]
        return shown if self.default in (None, "") else {**shown, "example_value": self.default}


Parameters = Annotated[list[Parameter], Field(max_length=1000)]


def schema_of(required: list[Parameter], optional: list[Parameter]) -> dict[str, Any]:
    """The JSON schema of arguments, by the names that a model is shown."""
    return {
        "type": "object",
        "properties": {function(each.name): each.shown() for each in (*required, *optional)},
        "required": list(dict.fromkeys(function(each.name) for each in required)),
    }


class _Api(BaseModel):
    category_name: str
    tool_name: str
    api_name: str
    api_description: Text = ""
    required_parameters: Parameters = []
    optional_parameters: Parameters = []
    template_response: Any = None


class _Query(BaseModel):
    query_id: str | int
    query: str
    api_list: list[_Api]
    relevant: list[tuple[str, str]] = Field(default=[], alias="relevant APIs")


class _ApiOfTool(BaseModel):
    name: str
    description: Text = ""
    required_parameters: Parameters = []
    optional_parameters: Parameters = []
    template_response: Any = None


class ToolFile(BaseModel):
    tool_name: str
    tool_description: Text = ""
    api_list: list[_ApiOfTool] = []

    def api(self, name: str) -> _ApiOfTool | None:
        return next((each for each in self.api_list if function(each.name) == name), None)


class _Said(BaseModel):
    error: Any = ""
    response: Any = ""


def query_files(folder: Path) -> dict[str, Path]:
    """Files of requests by subset, in the usual order; others follow by name. Empty where there are none."""
    found = {file.stem: file for file in _files(_folder_of_queries(folder), "*.json")}
    return {subset: found[subset] for subset in [*SUBSETS, *found] if subset in found}


def _folder_of_queries(folder: Path) -> Path:
    within = folder / OF_SUBSETS
    return within if within.is_dir() else folder


def requests(subset: str, path: Path, tools: Mapping[tuple[str, str], Path]) -> Iterator[Request]:
    """The requests of a subset. `tools`: what `tool_files` returned. Raises DataError for a file or a request that is
    broken."""
    rows = _json(path)
    if not isinstance(rows, list):
        raise DataError("is no list of requests", where=str(path), fix=RESTORE)
    for number, value in enumerate(rows, start=1):
        row = parse_record(value, _Query, where=f"{path}, request {number}", fix=RESTORE)
        functions = tuple(_function(api, tools) for api in row.api_list)
        relevant = {(standardize(tool), function(name)) for tool, name in row.relevant}
        yield Request(
            id=str(row.query_id),
            subset=subset,
            query=row.query,
            functions=functions,
            relevant=tuple(each.tool.name for each in functions if each.api[1:] in relevant),
        )


def tool_files(folder: Path) -> dict[tuple[str, str], Path]:
    """Files of tools by category and name, as calls spell them. Empty where there is no such folder."""
    return {(category(file.parent.name), standardize(file.stem)): file for file in _files(folder, "*/*.json")}


def read_tool(path: Path) -> ToolFile:
    return parse_record(_json(path), ToolFile, where=str(path), fix=RESTORE)


def cache_files(folder: Path) -> dict[Api, Path]:
    """Files of replies by function. Empty where there is no such folder."""
    return {Api.of(file.parts[-3], file.parts[-2], file.stem): file for file in _files(folder, "*/*/*.json")}


def recordings(path: Path) -> Iterator[Recorded]:
    """The replies of one function. Raises DataError for a file that is broken.

    A call whose arguments cannot be read is left out: nobody can make it again.
    """
    rows = _json(path, _replies)
    if not isinstance(rows, dict):
        raise DataError("is no object of replies", where=str(path), fix=RESTORE)
    for key, value in rows.items():
        said = parse_record(value, _Said, where=f"{path}, reply to {key[:80]}", fix=RESTORE)
        if (arguments := _arguments(key)) is not None:
            error = said.error if isinstance(said.error, str) else str(said.error or "")
            try:
                text = written(error, said.response)
            except RecursionError as fault:
                where = f"{path}, reply to {key[:80]}"
                raise DataError("is nested too deeply", where=where, fix=RESTORE) from fault
            yield Recorded(arguments, text, error_kind(error, said.response))


def _arguments(key: str) -> dict[str, Any] | None:
    """What Python printed, read as a literal: nothing is run. None where it is no dictionary of JSON."""
    if len(key) > LONGEST_KEY:
        return None
    try:
        return _JSON_OBJECT.validate_python(ast.literal_eval(key))
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):  # a ValidationError is a ValueError
        return None


def _of_json(value: Any) -> Any:
    return parse_json(_ANY.dump_json(value).decode())


_ANY: TypeAdapter[Any] = TypeAdapter(Any)
_JSON_OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(Annotated[dict[str, Any], BeforeValidator(_of_json)])


def _function(api: _Api, tools: Mapping[tuple[str, str], Path]) -> Function:
    """A function as ToolBench's environment shows it: of the optional parameters nothing, where none is required."""
    key = Api.of(api.category_name, api.tool_name, api.api_name)
    filed = tools.get((key.category, key.tool))
    tool = read_tool(filed) if filed else None
    own = tool.api(key.name) if tool else None
    description = own.description if own else api.api_description
    required = own.required_parameters if own else api.required_parameters
    optional = own.optional_parameters if own else api.optional_parameters
    name = key.offered
    text = f'This is the subfunction for tool "{key.tool}", you can use this tool.'
    if said := description.strip().replace(api.api_name, name)[:MAX_DESCRIPTION]:
        text += f'The description of this function is: "{said}"'
    schema = schema_of(required, optional if required else [])
    about = {
        "tool": tool.tool_name if tool else api.tool_name,
        "tool_description": tool.tool_description if tool else "",
        "function": name,
        "description": description,
        "parameters": [{**each.model_dump(), "required": each in required} for each in (*required, *optional)],
        "reply": api.template_response,
    }
    return Function(key, Tool(name=name, description=text, parameters=schema, category=api.category_name), about)


def _files(folder: Path, pattern: str) -> list[Path]:
    """Ordinary files only, in ordinary folders: a link may lead anywhere."""
    root = folder.resolve()
    files = [file for file in sorted(folder.glob(pattern)) if file.is_file()]
    return [file for file in files if file.resolve() == root / file.relative_to(folder)]


def _json(path: Path, parse: Callable[[str], Any] = parse_json) -> Any:
    try:
        text = read_bounded(path, MOST_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        found = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise DataError(found, where=str(path), fix=RESTORE) from error
    try:
        return parse(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"is no JSON: {reason(error)}", where=str(path), fix=RESTORE) from error


def _replies(text: str) -> Any:
    """Replies are written as ASCII again, so half of an emoji in them does no harm; a number that is none is null."""
    return json.loads(text, parse_constant=lambda name: None, parse_float=_finite)


def _finite(text: str) -> float | None:
    return value if math.isfinite(value := float(text)) else None

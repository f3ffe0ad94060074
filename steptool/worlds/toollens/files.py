"""The layout of a benchmark of retrieval, such as ToolLens: what is asked, what there is, and what helps.

queries.jsonl       {"_id": "q1", "text": "Book a flight and a hotel."}
corpus.jsonl        {"_id": "t1", "title": "Flights", "text": "Finds flights.", "parameters": a schema, if it has one}
                    in the published files without a title: name and parameters stand in the text (`texts`)
qrels/test.tsv      query-id <tab> corpus-id <tab> score, after a line of such names; train.tsv and dev.tsv as well
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, Field

from steptool.core.errors import DataError
from steptool.core.storage import parse_record, parse_text, read_lines
from steptool.core.types import FINISH, TOOL_NAME, Tool
from steptool.worlds.base import SPLITS, Split
from steptool.worlds.toolbench.names import standardize
from steptool.worlds.toollens.texts import MAX_DESCRIPTION, Described, fields_of

QUERIES, CORPUS, GRADES = "queries.jsonl", "corpus.jsonl", "qrels"
MAX_GRADE = 100
NAMED = 60
"""Characters of a name that is made of a text."""
SET_PATH = "set world.path to the folder with queries.jsonl, corpus.jsonl and qrels/test.tsv"
RESTORE = "restore the file from where it came"
ASKED = {"input": {"type": "string", "description": "What the tool is asked."}}
"""The arguments of a tool whose file says nothing of them."""

Id = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value), Field(min_length=1)]
Row = TypeVar("Row", bound=BaseModel)


class _Query(BaseModel):
    id: Id = Field(alias="_id")
    text: Annotated[str, Field(min_length=1)]


class _Tool(BaseModel):
    id: Id = Field(alias="_id")
    title: str = ""
    text: str = ""
    parameters: dict[str, Any] | None = None


@dataclass
class Asked:
    """A query with the tools that help, by their ids."""

    id: str
    query: str
    split: Split
    grades: dict[str, int] = field(default_factory=dict)


def files(folder: Path) -> list[Path]:
    """All that are read. Raises DataError where one is missing that must be there."""
    needed = [folder / QUERIES, folder / CORPUS, folder / GRADES / "test.tsv"]
    for file in needed:
        if not file.is_file():
            raise DataError("no such file", where=str(file), fix=SET_PATH)
    return needed[:2] + [file for split in SPLITS if (file := folder / GRADES / f"{split}.tsv").is_file()]


def read_tools(folder: Path) -> dict[str, Tool]:
    """By id, each with a name that a policy can call. Raises DataError for a file that is broken."""
    found: dict[str, Tool] = {}
    taken: set[str] = set()
    for number, row in enumerate(_rows(folder / CORPUS, _Tool), start=1):
        tool = _tool(row, f"{folder / CORPUS}:{number}")
        name = tool.name
        if not re.fullmatch(TOOL_NAME, name, re.ASCII) or name in (*taken, FINISH.casefold()):
            id = standardize(row.id)[:NAMED]
            name = f"tool_{id}_{len(taken)}" if re.fullmatch(r"\w+", id, re.ASCII) else f"tool_{len(taken)}"
        taken.add(name)
        found[row.id] = tool.model_copy(update={"name": name})
    return found


def _tool(row: _Tool, where: str) -> Tool:
    """By a name that may be none, or that of another tool."""
    if not row.title and row.parameters is None and (written := fields_of(row.text)):
        return parse_record(written, Described, where=where, fix=RESTORE).as_tool()
    parameters = row.parameters or {"type": "object", "properties": ASKED, "required": []}
    name = standardize(row.title or row.text.partition(":")[0])[:NAMED]
    return Tool(name=name, description=(row.text or row.title)[:MAX_DESCRIPTION], parameters=parameters)


def read_queries(folder: Path, tools: dict[str, Tool]) -> list[Asked]:
    """Those with at least one tool that helps, in the order of their grades. Raises DataError for a file that is
    broken, and for a grade of what is not there."""
    texts = {row.id: row.text for row in _rows(folder / QUERIES, _Query)}
    found: dict[str, Asked] = {}
    for split in SPLITS:
        file = folder / GRADES / f"{split}.tsv"
        for where, query, tool, grade in _grades(file) if file.is_file() else ():
            if query not in texts or tool not in tools:
                missing = f"query {query!r}" if query not in texts else f"tool {tool!r}"
                raise DataError(f"grades {missing[:100]}, which is not there", where=where, fix=RESTORE)
            asked = found.setdefault(query, Asked(query, texts[query], split))
            if asked.split != split:
                raise DataError(f"query {query!r} is in {asked.split} too", where=where, fix=RESTORE)
            if grade:
                asked.grades[tool] = grade
    return [each for each in found.values() if each.grades]


def _grades(path: Path) -> Iterator[tuple[str, str, str, int]]:
    """Place, query, tool and grade of every line but the first, which has names."""
    for number, line in enumerate(read_lines(path, missing=SET_PATH, broken=RESTORE), start=1):
        parts = line.rstrip("\r\n").split("\t")
        where = f"{path}:{number}"
        if number == 1 or parts == [""]:
            continue
        if len(parts) != 3 or not re.fullmatch(r"\d{1,3}(\.0)?", parts[2], re.ASCII):
            raise DataError(f"is no query, tool and grade: {line[:80]!r}", where=where, fix=RESTORE)
        grade = int(float(parts[2]))
        if grade > MAX_GRADE:
            raise DataError(f"a grade above {MAX_GRADE}", where=where, fix=RESTORE)
        yield where, parts[0], parts[1], grade


def _rows(path: Path, row: type[Row]) -> Iterator[Row]:
    for number, line in enumerate(read_lines(path, missing=SET_PATH, broken=RESTORE), start=1):
        value = parse_text(line, str(path), line=number, fix=RESTORE)
        yield parse_record(value, row, where=f"{path}:{number}", fix=RESTORE)

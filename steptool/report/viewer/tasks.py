"""What is known of the tasks that attempts are at: the question, the tools, and what solves it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from steptool.config.places import REFERENCES, TASKS
from steptool.core.storage import read_lines, read_text, restore
from steptool.report.viewer.sources import Source
from steptool.worlds.base import SPLITS


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class OfferedTool(_Read):
    name: str
    description: str = ""


class Check(_Read):
    kind: str
    expected: Any = None


class _TaskLine(_Read):
    """Of a file of tasks: of a stage, with its tools, or of an import, which names them."""

    id: str
    query: str
    group: str = ""
    system: str = ""
    tools: tuple[OfferedTool | str, ...] | None = None
    """None: all that stand in tools.json."""


class KnownTask(NamedTuple):
    query: str
    group: str
    system: str
    tools: tuple[OfferedTool, ...]


class Known(_Read):
    """A line of the references."""

    task_id: str
    answer_check: Check | None = None
    relevant_tools: tuple[str, ...] = ()
    goal: str = ""


class _Measured(_Read):
    """What the file of an arm's evaluation says of its tasks."""

    grounded: dict[str, float] = {}


class Tasks:
    """The tasks of a project and of the imports among its sources, and their references."""

    def __init__(self, root: Path, sources: Iterable[Source]) -> None:
        folders = [(root / part.path).parent for source in sources for part in source.parts]
        files = [root / TASKS / f"{split}.jsonl" for split in SPLITS]
        files += [folder / "tasks.jsonl" for folder in dict.fromkeys(folders)]
        self.tasks: dict[str, KnownTask] = {}
        for file in files:
            offered = {tool.name: tool for tool in _whole(file.with_name("tools.json"), _TOOLS) or ()}
            self.tasks |= {line.id: _task_of(line, offered) for line in _lines(file, _TaskLine)}
        self.references = {known.task_id: known for known in _lines(root / REFERENCES, Known)}

    def query(self, task: str) -> str:
        return self.tasks[task].query if task in self.tasks else ""

    def group(self, task: str) -> str:
        return self.tasks[task].group if task in self.tasks else ""


def grounded_of(root: Path, source: Source) -> list[dict[str, float]]:
    """Of each arm of an evaluation: task id → share of its attempts with a grounded answer; empty for other sources."""
    files = [(root / part.path).with_name(f"{part.name}.json") for part in source.parts if source.kind == "arm"]
    found = [_whole(file, TypeAdapter(_Measured)) for file in files]
    return [each.grounded if each else {} for each in found]


_TOOLS = TypeAdapter(tuple[OfferedTool, ...])


def _task_of(line: _TaskLine, offered: Mapping[str, OfferedTool]) -> KnownTask:
    named = offered.values() if line.tools is None else line.tools
    tools = [offered.get(tool, OfferedTool(name=tool)) if isinstance(tool, str) else tool for tool in named]
    return KnownTask(line.query, line.group, line.system, tuple(tools))


def _lines(file: Path, model: type[Any]) -> Iterator[Any]:
    """The lines that are such records. Of what stands in another one, the page says that it is unknown."""
    if not file.is_file():
        return
    for line in read_lines(file, missing="", broken=restore(file)):
        try:
            yield model.model_validate_json(line)
        except ValidationError:
            continue


def _whole(file: Path, adapter: TypeAdapter[Any]) -> Any:
    """What the file holds; None where there is none, or something else stands there."""
    if not file.is_file():
        return None
    try:
        return adapter.validate_json(read_text(file))
    except ValidationError:
        return None

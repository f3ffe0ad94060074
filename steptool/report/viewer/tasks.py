"""What is known of the tasks that attempts are at: the question, the tools, and what solves it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from steptool.config.places import REFERENCES, TASKS
from steptool.core.storage import read_lines
from steptool.report.viewer.sources import Source

SPLITS = ("train", "dev", "test")


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class OfferedTool(_Read):
    name: str
    description: str = ""


def _by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class KnownTask(_Read):
    """A line of a file of tasks: of a stage, or of an import, which names its tools only."""

    id: str
    query: str
    group: str = ""
    tools: tuple[Annotated[OfferedTool, BeforeValidator(_by_name)], ...] | None = None


class _Check(_Read):
    kind: str
    expected: Any = None


class Known(_Read):
    """A line of the references."""

    task_id: str
    answer_check: _Check | None = None
    relevant_tools: tuple[str, ...] = ()
    goal: str = ""


class Tasks:
    """The tasks of a project and of the imports among its sources, and their references."""

    def __init__(self, root: Path, sources: Iterable[Source]) -> None:
        folders = [(root / part.path).parent for source in sources for part in source.parts]
        files = [root / TASKS / f"{split}.jsonl" for split in SPLITS]
        files += [folder / "tasks.jsonl" for folder in dict.fromkeys(folders)]
        self.tasks = {task.id: task for file in files for task in _read(file, KnownTask)}
        self.references = {known.task_id: known for known in _read(root / REFERENCES, Known)}

    def query(self, task: str) -> str:
        return self.tasks[task].query if task in self.tasks else ""

    def group(self, task: str) -> str:
        return self.tasks[task].group if task in self.tasks else ""


def _read(file: Path, model: type[Any]) -> Iterator[Any]:
    """The lines that are such records. Of what stands in another one, the page says that it is unknown."""
    if not file.is_file():
        return
    for line in read_lines(file, missing="", broken=f"restore it: dvc checkout --force {file}"):
        try:
            yield model.model_validate_json(line)
        except ValidationError:
            continue

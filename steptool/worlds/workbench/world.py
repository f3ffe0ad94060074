"""The world `workbench`: requests of an office, split by their templates, so that test asks what training never did."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import ClassVar, Literal

from steptool.core.errors import DataError
from steptool.core.fields import Fraction, Natural, Outside, Settings
from steptool.core.types import Reference, Task, content_hash
from steptool.worlds.base import SPLITS, Split
from steptool.worlds.lookup import of_split, of_task
from steptool.worlds.workbench import pack
from steptool.worlds.workbench.office import Office
from steptool.worlds.workbench.pack import Request
from steptool.worlds.workbench.session import WorkBenchSession
from steptool.worlds.workbench.toolbox import after, as_call, has_own_arguments, offered

SYSTEM = "Now: Thursday 2023-11-30 00:00. Meetings start at 09:00 or later and end by 18:00."
"""What every agent of the benchmark is told."""
SALT = 126
"""Of the hash that splits the templates. Chosen by counts alone: it leaves every domain in every split."""


class WorkBench:
    """Raises InputError where no folder is named, DataError where a file of it is broken."""

    name: ClassVar[str] = "workbench"

    class Config(Settings):
        path: Outside = ""
        """Folder of the pack; empty takes the environment variable STEPTOOL_WORKBENCH."""
        tools: Literal["domains", "all"] = "domains"
        """Which tools a request is offered: those of the domains that it needs, or all 27."""
        dev: Fraction = 0.15
        test: Fraction = 0.2
        """Shares of the templates that are held out, for choosing settings and for the final result. A template's split
        depends on the template alone; 1.0 makes every request a test task."""
        fold: Natural = 0
        """Another number holds out other templates for dev, and test stays: settings that are chosen on several folds
        are chosen on more templates. Fold 0 alone is sure to have every domain in dev."""

    def __init__(self, config: Config, seed: int) -> None:
        """`seed` changes nothing."""
        self.config = config
        folder = pack.folder(config.path)
        self.office: Office = pack.office(folder)
        self._requests = {request.id: request for request in pack.requests(folder)}
        requests: dict[Split, list[Request]] = {split: [] for split in SPLITS}
        for request in self._requests.values():
            _check(request, folder)
            requests[_split(request.base_template, config)].append(request)
        self._splits = {
            split: [self._task(request) for request in _in_turn(found)] for split, found in requests.items()
        }

    @staticmethod
    def content(config: Config) -> str:
        """Hash of the requests and the databases. Raises InputError where they are missing."""
        return pack.content(pack.folder(config.path))

    def tasks(self, split: Split) -> list[Task]:
        """Raises WorldError for a split that is not train, dev or test."""
        return of_split(split, self._splits, "world workbench")

    def reference(self, task: Task) -> Reference:
        """The tools of the true calls, of whatever changes something. A request that needs none of its own conditions
        has no relevant tool. The requests of a template are one cluster."""
        request = self._request(task)
        calls = request.calls
        names = tuple(dict.fromkeys(call.name for call in calls))
        goal = "; ".join(f"{call.name} {call.arguments}" for call in calls) or "change nothing"
        return Reference(
            task_id=task.id, has_own_check=True, relevant_tools=names, goal=goal, cluster=request.base_template
        )

    def open(self, task: Task, seed: int) -> WorkBenchSession:
        target = after(self.office, map(as_call, self._request(task).calls))
        return WorkBenchSession(task, self.office, target)

    def _request(self, task: Task) -> Request:
        return of_task(task, self._requests, "world workbench")

    def _task(self, request: Request) -> Task:
        tools = offered(None if self.config.tools == "all" else request.toolkits)
        return Task(id=request.id, group=request.domain, query=request.query, tools=tools, system=SYSTEM)


def _check(request: Request, folder: Path) -> None:
    """Raises DataError for a true call that could never be made: what it should change would count for nothing."""
    if wrong := [call.name for call in request.calls if not has_own_arguments(as_call(call))]:
        found = f"request {request.id[:80]}: {wrong[0][:80]} is no tool, or lacks an argument that it is given"
        raise DataError(found, where=str(folder / pack.QUERIES), fix=pack.RESTORE)


def _split(template: str, config: WorkBench.Config) -> Split:
    place = int(content_hash([SALT, template]), 16) / 16**16 - config.test
    if place < 0:
        return "test"
    others = 1 - config.test
    return "dev" if (place - config.fold * config.dev) % others < config.dev else "train"


def _in_turn(requests: list[Request]) -> list[Request]:
    """One request of each domain after the other, and within a domain one of each template."""
    by_template = _places(requests, [request.base_template for request in requests])
    return _places(by_template, [request.domain for request in by_template])


def _places(requests: list[Request], kinds: list[str]) -> list[Request]:
    """The first request of each kind, then the second of each, and so on."""
    seen = Counter[str]()
    places = []
    for kind in kinds:
        places.append(seen[kind])
        seen[kind] += 1
    return [request for _, request in sorted(zip(places, requests, strict=True), key=lambda pair: pair[0])]

"""The page and its data over HTTP, for one browser on this machine.

    GET /KEY/                                   the page, its scripts and its style: files of this package, nothing else
    GET /KEY/api/project                        sources and their parts as they are now; which arms to compare first
    GET /KEY/api/rows?source=                   the list, a block a line, as the files are read; first what arms did
                                                where nobody judged, last the files that could not be read
    GET /KEY/api/search?source=&text=           numbers of the rows that hold all words
    GET /KEY/api/task?source=&task=             the task, and every attempt at it, step by step
    GET /KEY/api/tokens?source=&row=            the token stream of an attempt

It listens on loopback alone. KEY is random: what runs on this machine as another user, and a web page that asks
loopback ports, do not know it; a page that gives its own name this machine's address is refused by the Host header.
Nothing here writes, and no request names a path.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.trustedhost import TrustedHostMiddleware

from steptool.config.arms import pairs_of
from steptool.config.settings import Params
from steptool.core.errors import StepToolError
from steptool.core.types import ScoredTrajectory, Trajectory
from steptool.report.viewer import detail
from steptool.report.viewer.credit import Credit, Credited, no_rewards
from steptool.report.viewer.index import Index, state_of
from steptool.report.viewer.sources import Source
from steptool.report.viewer.tasks import Tasks, grounded_of
from steptool.report.viewer.tokens import Words

PAGE = Path(__file__).parent / "page"
HOSTS = ["127.0.0.1", "localhost"]
MAX_ATTEMPTS, MAX_COMPARED = 64, 512
"""At one task: attempts that are shown together, of more the first; and attempts of a part that get credit."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Name = Annotated[str, Query(max_length=1000)]


class Missing(LookupError):
    """What the page asks for is not there, or not any more."""


class Viewer:
    """The sources of a project, each read when it is first asked for, and again when its files changed."""

    def __init__(self, root: Path, look: Callable[[], tuple[list[Source], Credit]]) -> None:
        """`look` says which sources there are now, and what the settings say of credit."""
        self.root, self.words, self._look = root, Words(root), look
        self.sources: dict[str, Source] = {}
        self.credit = Credit(None)
        self.look()
        self._indexes: dict[str, Index] = {}
        self._tasks: Tasks | None = None
        self._lock = Lock()

    def look(self) -> None:
        """Raises InputError where there is nothing any more."""
        sources, self.credit = self._look()
        self.sources = {source.key: source for source in sources}

    def fresh(self, key: str) -> Index:
        """The index of a source as its files are now. Raises Missing for one that there is not."""
        if key not in self.sources:
            raise Missing(f"source {key}")
        source = self.sources[key]
        with self._lock:
            index = self._indexes.get(key)
            if index is None or (index.source, index.state) != (source, state_of(self.root, source)):
                if index is not None or self._tasks is None:
                    self._tasks = Tasks(self.root, self.sources.values())
                index = self._indexes[key] = Index(self.root, source, self._tasks)
            return index

    def index(self, key: str) -> Index:
        """The one that the page has the rows of."""
        return self._indexes[key] if key in self._indexes else self.fresh(key)

    @property
    def tasks(self) -> Tasks:
        with self._lock:
            self._tasks = self._tasks or Tasks(self.root, self.sources.values())
            return self._tasks

    def project(self) -> dict[str, Any]:
        self.look()
        return {
            "name": self.root.resolve().name,
            "sources": [
                {
                    "key": source.key,
                    "title": source.title,
                    "kind": source.kind,
                    "parts": [{"name": part.name, "path": str(part.path)} for part in source.parts],
                }
                for source in self.sources.values()
            ],
            "pairs": [] if self.credit.params is None else _pairs(self.credit.params),
        }

    def rows(self, index: Index) -> Iterator[str]:
        yield json.dumps({"grounded": grounded_of(self.root, index.source)}) + "\n"
        for block in index.blocks():
            yield json.dumps({"rows": block}, ensure_ascii=False, separators=(",", ":")) + "\n"
        yield json.dumps({"problems": index.problems}) + "\n"

    def task(self, key: str, task: str) -> dict[str, Any]:
        """Raises Missing where no attempt is at it, StepToolError where a record is broken."""
        index = self.index(key)
        whole = index.is_read
        rows = index.attempts_at(task)
        if not rows:
            raise Missing(f"attempt at task {task}")
        shown, found, notes = rows[:MAX_ATTEMPTS], [], {}
        for number, part in enumerate(index.source.parts):
            own = [row for row in rows if index.rows[row].part == number]
            if own:
                records = index.records(own[:MAX_COMPARED])
                credited = self._credited(records, len(own), key, part.name)
                notes[part.name] = credited.notes
                earned = credited.earned or [None] * len(records)
                found += [
                    {"row": row, "part": number, "attempt": index.rows[row].attempt, **detail.attempt(record, mine)}
                    for row, record, mine in zip(own, records, earned, strict=False)
                    if row in shown
                ]
        return {"task": self._about(task), "attempts": found, "all": len(rows), "is_whole": whole, "notes": notes}

    def tokens(self, key: str, row: int) -> dict[str, Any]:
        """Raises Missing for a row that there is not, StepToolError where the record is broken."""
        index = self.index(key)
        if not 0 <= row < len(index.rows):
            raise Missing(f"row {row}")
        (record,) = index.records([row])
        made = record.trajectory if isinstance(record, ScoredTrajectory) else record
        return {"missing": self.words.missing, "steps": [self.words.of(step)._asdict() for step in made.steps]}

    def _credited(self, records: list[Trajectory | ScoredTrajectory], count: int, source: str, part: str) -> Credited:
        if len(records) < count:
            return no_rewards(f"more than {MAX_COMPARED} attempts are at this task")
        scored = [record for record in records if isinstance(record, ScoredTrajectory)]
        if len(scored) < len(records):
            return no_rewards("no annotator has judged these steps")
        return self.credit.of(scored, source, part)

    def _about(self, task: str) -> dict[str, Any]:
        known, reference = self.tasks.tasks.get(task), self.tasks.references.get(task)
        check = reference.answer_check if reference else None
        return {
            "id": task,
            "group": known.group if known else "",
            "query": known.query if known else None,
            "system": known.system if known else "",
            "tools": [tool.model_dump() for tool in known.tools] if known else [],
            "relevant": reference.relevant_tools if reference else (),
            "goal": reference.goal if reference else "",
            "expected": f"{detail.as_text(check.expected)} ({check.kind})" if check and check.kind != "judge" else "",
        }


def application(viewer: Viewer, key: str) -> FastAPI:
    """Everything lies below /`key`. Its functions that are not async run in threads: what one reads stops no other."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(Missing)
    async def is_missing(request: Request, error: Missing) -> JSONResponse:
        return JSONResponse({"detail": f"there is no {str(error)[:200]}; reload the page"}, 404)

    @app.exception_handler(StepToolError)
    async def is_broken(request: Request, error: StepToolError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @app.get(f"/{key}/api/project")
    def project() -> dict[str, Any]:
        return viewer.project()

    @app.get(f"/{key}/api/rows")
    def rows(source: Name) -> StreamingResponse:
        return StreamingResponse(viewer.rows(viewer.fresh(source)), media_type="application/x-ndjson")

    @app.get(f"/{key}/api/search")
    def search(source: Name, text: Name) -> dict[str, list[int]]:
        return {"rows": viewer.index(source).search(text)}

    @app.get(f"/{key}/api/task")
    def task(source: Name, task: Name) -> JSONResponse:
        return JSONResponse(viewer.task(source, task))

    @app.get(f"/{key}/api/tokens")
    def tokens(source: Name, row: int) -> JSONResponse:
        return JSONResponse(viewer.tokens(source, row))

    app.mount(f"/{key}", StaticFiles(directory=PAGE, html=True))
    return app


def _pairs(params: Params) -> list[tuple[str, str]]:
    """Of arms, as the report compares them; none where there is a single arm."""
    with suppress(ValueError):  # no arm to unpack
        return pairs_of(params)
    return []

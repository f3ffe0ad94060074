"""What tools replied, kept in a file, so that they are asked once and reply the same ever after.

    call ──▶ RecordedConnection ── kept? ──▶ the reply of then
                    └───────────── else ───▶ the tool, live; its reply is kept

A reply is found by the toolbox, by the calls of the attempt so far that change its state, and by the call itself. Where
a reply is missing after others that were found, the tool is first brought to where these would have brought it: the
calls that change state are made live.

What may pass is not kept (see PASSES). Several processes may use one file at once; of two that ask the same at once the
first to reply decides. A process that is killed loses nothing that was kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steptool.core.errors import WorldError
from steptool.core.types import Observation, ToolCall
from steptool.system.database import explained, open_database
from steptool.worlds.project.session import failure
from steptool.worlds.project.toolbox import PASSES, Called, Connection, Judges, Toolbox

TABLES = """
pragma synchronous = normal;
create table if not exists replies (
    key text primary key, toolbox text not null, earlier text not null, call text not null,
    text text not null, error text, at text not null default current_timestamp);
create index if not exists of_toolbox on replies (toolbox, key);
create table if not exists listings (
    source text primary key, content text not null, at text not null default current_timestamp);
"""


@dataclass(frozen=True)
class Kept:
    """A call whose reply is kept. `earlier`: the calls that led to the state in which it was made."""

    earlier: tuple[ToolCall, ...]
    call: ToolCall
    reply: Observation


class Recordings:
    """`path` is made with the first reply that is kept. Raises DataError for a file that holds something else,
    StorageError where it cannot be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: sqlite3.Connection | None = None
        self._asking: dict[tuple[int, str], asyncio.Event] = {}
        """Calls that are being made, by their event loop and key."""

    def find(self, key: str) -> Observation | None:
        found = self._rows("select text, error from replies where key = ?", key)
        return Observation(text=found[0][0], error=found[0][1]) if found else None

    def keep(
        self, key: str, toolbox: str, earlier: Sequence[ToolCall], call: dict[str, Any], seen: Observation
    ) -> None:
        """Keep a reply, unless there is one."""
        text, error = (None if each is None else _valid(each) for each in (seen.text, seen.error))
        self._write(
            "insert or ignore into replies (key, toolbox, earlier, call, text, error) values (?, ?, ?, ?, ?, ?)",
            *(key, toolbox, _json([_plain(each) for each in earlier]), _json(call), text, error),
        )

    def listing(self, source: str) -> str | None:
        """What the tools of `source` were said to be when it was first asked."""
        found = self._rows("select content from listings where source = ?", source)
        return str(found[0][0]) if found else None

    def keep_listing(self, source: str, content: str) -> None:
        """Keep a listing in place of the one that is there."""
        self._write("insert or replace into listings (source, content) values (?, ?)", source, content)

    def sample(self, toolbox: str, count: int) -> list[Kept]:
        """Calls of a toolbox, at most `count`, picked by their keys: as good as at random, and always the same."""
        rows = self._rows(
            "select earlier, call, text, error from replies where toolbox = ? order by key limit ?", toolbox, count
        )
        return [
            Kept(
                earlier=tuple(map(ToolCall.model_validate, json.loads(earlier))),
                call=ToolCall.model_validate(json.loads(call)),
                reply=Observation(text=text, error=error),
            )
            for earlier, call, text, error in rows
            if "name" in json.loads(call)
        ]

    async def once(self, key: str, ask: Callable[[], Awaitable[Observation]]) -> tuple[Observation, bool]:
        """The reply that is kept, or what `ask` returns, and whether it was asked. While one asks, others of this
        process wait for what it is told; where that is not kept, they ask themselves."""
        mine = (id(asyncio.get_running_loop()), key)
        while (found := self.find(key)) is None and mine in self._asking:
            await self._asking[mine].wait()
        if found is not None:
            return found, False
        self._asking[mine] = asyncio.Event()
        try:
            return await ask(), True
        finally:
            self._asking.pop(mine).set()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        if self._file is None and not self._path.exists():
            return []
        with self._speaking() as file:
            return file.execute(query, values).fetchall()

    def _write(self, statement: str, *values: Any) -> None:
        with self._speaking() as file:
            file.execute(statement, values)

    @contextmanager
    def _speaking(self) -> Iterator[sqlite3.Connection]:
        with explained(
            self._path,
            is_not="holds no recordings",
            fix="move the file away, or name another as world.recordings",
            fix_unusable="make its folder writable and free some space, or set world.record: off",
        ):
            if self._file is None:
                self._file = open_database(self._path, TABLES)  # rollouts run on a loop in any thread, one at a time
            yield self._file


class RecordedConnection:
    """A connection that asks the tools for what is not kept, and for nothing where `only` is set.

    `identity` says whose replies these are: equal where the tools are the same.
    """

    def __init__(self, toolbox: Toolbox, recordings: Recordings, identity: str, *, only: bool) -> None:
        self._toolbox, self._recordings, self._identity, self._only = toolbox, recordings, identity, only
        self.replayed = 0
        """Calls that were replied to from the file."""
        self._live: Connection | None = None
        self._earlier: list[ToolCall] = []
        """Calls of this attempt that may have changed its state."""
        self._behind: list[ToolCall] = []
        """Those of them that the live tools do not know of."""
        self._turn = asyncio.Lock()

    async def call(self, call: ToolCall) -> Observation:
        async with self._turn:
            found, was_asked = await self._replied(_plain(call), lambda live: live.call(call))
            self.replayed += found is not None and not was_asked
            if found is None:
                return failure("no_recording", f"no reply of {call.name} to these arguments is recorded")
            if self._toolbox.changes_state(call.name) and not (was_asked and _may_pass(found)):
                self._earlier.append(call)
                if not was_asked:
                    self._behind.append(call)
            return found

    async def close(self) -> None:
        async with self._turn:
            if self._live is not None:
                await self._live.close()

    async def _replied(
        self, request: dict[str, Any], ask: Callable[[Connection], Awaitable[Observation]]
    ) -> tuple[Observation | None, bool]:
        """The reply and whether the tools gave it now. None where it is not kept and they must not be asked."""
        key = _key(self._identity, [_plain(call) for call in self._earlier], request)
        if self._only:
            return self._recordings.find(key), False

        async def live() -> Observation:
            seen = await ask(await self._caught_up())
            if _may_pass(seen):
                return seen
            self._recordings.keep(key, self._identity, self._earlier, request, seen)
            return self._recordings.find(key) or seen

        return await self._recordings.once(key, live)

    async def _caught_up(self) -> Connection:
        if self._live is None:
            self._live = self._toolbox.connect()
        while self._behind:
            await self._live.call(self._behind[0])
            del self._behind[0]
        return self._live


class RecordedJudges(RecordedConnection):
    """The same for tools beside which check functions run: what these say is kept, too."""

    async def judge(self, check: str, answer: str, calls: Sequence[Called]) -> float:
        async def asked(live: Connection) -> Observation:
            assert isinstance(live, Judges)
            return Observation(text=json.dumps(await live.judge(check, answer, calls)))

        request = {"check": check, "answer": answer, "calls": [vars(call) for call in calls]}
        async with self._turn:
            found, _ = await self._replied(request, asked)
        if found is None:
            fix = "set world.record: auto, and run it once"
            raise WorldError(f"no verdict of {check} on this attempt is recorded", where=f"check {check}", fix=fix)
        return float(json.loads(found.text))


def _may_pass(seen: Observation) -> bool:
    return seen.error is not None and PASSES.fullmatch(seen.error) is not None


def _key(*parts: Any) -> str:
    return hashlib.sha256(_json(parts).encode()).hexdigest()


def _json(value: Any) -> str:
    """Canonical; half surrogate pairs are escapes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _plain(call: ToolCall) -> dict[str, Any]:
    return {"name": call.name, "arguments": call.arguments}


def _valid(text: str) -> str:
    return text.encode("utf-8", "replace").decode()

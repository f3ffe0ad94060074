"""What does this call get? Recorded replies first, then what a model said before, then a model.

    call ──▶ exact ──▶ canonical ──▶ nearest ──▶ kept ──▶ simulator ──▶ kept, then replied
                                                  └─ no simulator: `missing`

What a model says is in the file of replies before anybody is told it, so a process that is killed takes back nothing.
Several attempts that ask the same at once share one answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steptool.core.errors import DataError, StorageError, WorldError, reason
from steptool.core.types import Observation
from steptool.worlds.likeness import canonical, one_spelling
from steptool.worlds.project.recording import Recordings
from steptool.worlds.toolbench.library import Library
from steptool.worlds.toolbench.names import Api
from steptool.worlds.toolbench.replies import EXAMPLES_AMONG, Reply, missing
from steptool.worlds.toolbench.simulator import Simulator

LONGEST_ARGUMENTS = 20_000
"""Characters of the arguments of a call for which a model is asked."""


class Desk:
    """`kept` is the file of what a model said; it is made with the first reply. Raises StorageError where it can have
    no folder."""

    def __init__(self, library: Library, kept: Path, *, nearest: float, simulator: Simulator | None) -> None:
        self.library = library
        self._nearest, self._simulator = nearest, simulator
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            found = f"its folder cannot be made: {reason(error)}"
            raise StorageError(found, where=str(kept), fix="name another file: world.kept, or --kept") from error
        self._kept = Recordings(kept)

    async def reply(self, api: Api, arguments: Mapping[str, Any]) -> Reply:
        """Raises WorldError for a broken file of recordings, and what `Simulator.reply` raises."""
        try:
            recorded = self.library.replies(api)
        except DataError as error:
            raise WorldError(error.found, where=error.where, fix=error.fix) from error
        if found := recorded.find(arguments, self._nearest):
            return found
        spelled = canonical(one_spelling(arguments))
        key = canonical([*api, spelled])
        if self._simulator is None:
            return _simulated(self._kept.find(key)) or missing()
        about = self.library.describe(api)
        if about is None:
            return missing(f"no such function: {api.offered}", "unknown_tool")
        if len(spelled) > LONGEST_ARGUMENTS:
            return missing("the arguments are too long", "invalid_argument")
        simulator = self._simulator

        async def ask() -> Observation:
            reply = await simulator.reply(api, about, recorded.examples(EXAMPLES_AMONG), arguments)
            if reply.source == "missing":
                return Observation(text=reply.text, error=FAILED)
            seen = Observation(text=reply.text, error=reply.error)
            self._kept.keep(key, str(api), (), {"name": api.offered, "arguments": dict(arguments)}, seen)
            return self._kept.find(key) or seen

        seen, _ = await self._kept.once(key, ask)
        if seen.error == FAILED:
            return missing(json.loads(seen.text)["error"], FAILED)
        return _simulated(seen) or missing()

    def close(self) -> None:
        """May be called twice."""
        self._kept.close()
        if self._simulator is not None:
            self._simulator.close()


FAILED = "simulation"
"""Kind of the failure of a call for which no model had a reply. It is not kept."""


def _simulated(seen: Observation | None) -> Reply | None:
    return None if seen is None else Reply(seen.text, seen.error, "simulated")

"""Two machines that watch, through the labels of one flow run, that the other still lives.

    orchestrator ── steptool.orchestrator: 41 ──>  flow run  <── steptool.node: 17 ── node

Each counts its own label up, and reads the run: its state, and the other's count. A count that stands still while
the API answers means that the other is gone; an API that does not answer means nothing. No clock is compared.

Prefect's own heartbeats are events that a flow run sends every 30 s at most, and an automation turns their absence
into `Crashed`: too slow to stop a stage within 10 s, and the node could not watch the orchestrator by them.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.states import Cancelled, Crashed, State

BEAT_S = 0.7
READS = 6
"""A count must have stood still for so many answers: where the API is slow, the other side's beats are slow too."""
ORCHESTRATOR, NODE = "steptool.orchestrator", "steptool.node"


class Pulse:
    """One side of a flow run that two machines watch."""

    def __init__(self, client: SyncPrefectClient, run_id: UUID, mine: str, theirs: str) -> None:
        self._client, self._run_id, self._mine, self._theirs = client, run_id, mine, theirs
        self._count = 0
        self._seen: Any = None
        self._since = time.monotonic()
        self._reads = 0

    def beat(self) -> Any:
        """Say that this side lives; the flow run, or None where the API does not answer."""
        self._count += 1
        try:
            self._client.update_flow_run_labels(self._run_id, {self._mine: self._count})
            run = self._client.read_flow_run(self._run_id)
        except httpx.HTTPError:
            self._heard(self._seen)
            return None
        theirs = (run.labels or {}).get(self._theirs)
        if theirs != self._seen:
            self._heard(theirs)
        else:
            self._reads += 1
        return run

    @property
    def has_spoken(self) -> bool:
        """Whether the other side was ever heard of."""
        return self._seen is not None

    @property
    def silence_s(self) -> float:
        """How long the other side, once heard, has said nothing to an API that answers."""
        return time.monotonic() - self._since if self.has_spoken and self._reads >= READS else 0.0

    def _heard(self, theirs: Any) -> None:
        self._seen, self._since, self._reads = theirs, time.monotonic(), 0


@contextmanager
def watched(run_id: UUID, lost_s: float, stop: Callable[[], None]) -> Iterator[list[State]]:
    """On the node: beat while the block runs, and call `stop` once the run is not wanted any more.

    That is when it was cancelled or given up, or when the orchestrator has been silent for `lost_s`. The list then
    holds the state to end in; `Crashed` tells an orchestrator that was only slow to ask again.
    """
    ends: list[State] = []
    done = threading.Event()
    logger = get_run_logger()

    def watch() -> None:
        with get_client(sync_client=True) as client:
            pulse = Pulse(client, run_id, mine=NODE, theirs=ORCHESTRATOR)
            while not done.is_set():
                if end := _unwanted(pulse.beat(), pulse, lost_s):
                    ends.append(end)
                    logger.warning("%s; stopping", end.message)
                    stop()
                    return
                done.wait(BEAT_S)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(watch,), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield ends
    finally:
        done.set()
        thread.join()


def _unwanted(run: Any, pulse: Pulse, lost_s: float) -> State | None:
    if run is not None and run.state is not None and (run.state.is_cancelling() or run.state.is_final()):
        return Cancelled(message=f"this run was set to {run.state.name}: {run.state.message}")
    if pulse.silence_s > lost_s:
        return Crashed(message=f"the orchestrator has been silent for {pulse.silence_s:.0f} s")
    return None

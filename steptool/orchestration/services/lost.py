"""Gives a final state to flow runs that no process works on any more, so that they give back the slot that they hold.

    python -m steptool.orchestration.services.lost cpu        the work pool

A worker that is stopped or killed takes its flow runs along, and they say nothing more: Prefect shows them as running,
and the deployment's next run waits for their slot. A run that waits for approval is suspended, has no process and no
slot, and is left alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType, WorkerStatus
from prefect.states import Cancelled, Crashed

from steptool.core.errors import StepToolError
from steptool.orchestration.approval.decisions import server

WORKER = "serve"
"""Name of the worker of `make serve`. Its flow runs run on this machine."""
ENDING_S = 15.0
"""Longest wait for the end of what a flow run has started: twice a supervisor's grace."""
POLL_S = 0.5
_VARIABLE = b"PREFECT__FLOW_RUN_ID="
UNFINISHED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


def end_lost_runs(pool: str) -> list[str]:
    """End the unfinished flow runs of `pool` of which no process is left on this machine; their names.

    To be called while the worker of `make serve` does not run. Where another worker serves the pool too,
    nothing shows which of them has a flow run, and all are left as they are.
    """
    with server() as client:
        workers = client.read_workers_for_work_pool(pool)
        if any(worker.status == WorkerStatus.ONLINE and worker.name != WORKER for worker in workers):
            return []
        runs = _unfinished(client, pool)
        deadline = time.monotonic() + ENDING_S
        while (alive := _alive() & {str(run.id) for run in runs}) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        lost = [run for run in runs if str(run.id) not in alive]
        for run in lost:
            _end(client, run)
        return [run.name for run in lost]


def _unfinished(client: SyncPrefectClient, pool: str) -> list[FlowRun]:
    found: list[FlowRun] = []
    while page := client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED))),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
        offset=len(found),
    ):
        found += page
    return found


def _end(client: SyncPrefectClient, run: FlowRun) -> None:
    is_cancelled = run.state is not None and run.state.is_cancelling()
    state = Cancelled if is_cancelled else Crashed
    client.set_flow_run_state(run.id, state(message="its worker was stopped, and its process with it"))


def _alive() -> set[str]:
    """Ids of the flow runs that processes of this machine belong to; what a flow run starts inherits its variable."""
    return set(_ids())


def _ids() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = path.read_bytes().split(b"\0")
        except OSError:  # it has ended since, or is another user's
            continue
        yield from (
            variable.removeprefix(_VARIABLE).decode(errors="replace")
            for variable in variables
            if variable.startswith(_VARIABLE)
        )


def main(pool: str) -> int:
    try:
        for name in end_lost_runs(pool):
            print(name)
    except StepToolError as error:
        print(f"steptool: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

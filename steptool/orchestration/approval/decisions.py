"""What a promotion asks a person, and the person's side of it: list what waits, and decide.

A flow run that waits is suspended: no process is held. What it asks lies with the flow run on the Prefect
server, and so does the answer, so that any machine that reaches the server can give it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import ObjectNotFound
from prefect.input import RunInput, create_flow_run_input, read_flow_run_input
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL
from pydantic import Field

from steptool.core.errors import InputError, StepToolError
from steptool.core.types import Frozen
from steptool.registry.receipts import NAME_LENGTH, REASON_LENGTH, Receipt, one_line

PROMOTION = "promotion"
"""Name of the flow that asks."""
_PROPOSAL = "proposal"
SETTLE_S = 15.0
"""Least time between a run's suspension and its going on."""
Outcome = Literal["approved", "rejected", "timed_out"]


class NotWaiting(InputError):
    """The flow run does not wait for a decision, or no longer."""


class Decision(RunInput):
    """The answer. Prefect's page asks for it too, when a suspended run is resumed there."""

    outcome: Outcome
    by: Annotated[str, Field(min_length=1, max_length=NAME_LENGTH)]
    reason: Annotated[str, Field(min_length=1, max_length=REASON_LENGTH)]


class Proposal(Frozen):
    """The question: the receipt that would be written if the answer is yes."""

    receipt: Receipt
    deadline: datetime
    expiry: UUID
    """The flow run that answers `timed_out` at the deadline."""

    def save(self) -> None:
        """Keep it with the flow run that runs here."""
        create_flow_run_input(_PROPOSAL, self.model_dump(mode="json"))

    @classmethod
    def of_run(cls, flow_run_id: UUID | None = None) -> Proposal | None:
        """What that flow run (by default the one that runs here) asks; None if it has not asked yet."""
        found = read_flow_run_input(_PROPOSAL, flow_run_id=flow_run_id)
        return cls.model_validate(found) if found else None


def waiting(client: SyncPrefectClient) -> list[tuple[FlowRun, Proposal]]:
    """Promotions that wait for a decision."""
    runs = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[PROMOTION])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED]))),
    )
    return [(run, proposal) for run in runs if (proposal := Proposal.of_run(run.id))]


def list_waiting() -> None:
    """Print what waits, with the numbers of the gate and what to type."""
    with server() as client:
        found = waiting(client)
    if not found:
        print("no promotion waits for a decision")
    for run, proposal in found:
        receipt = proposal.receipt
        until = proposal.deadline.isoformat(timespec="minutes")
        print(f"{run.name}   {receipt.model} version {receipt.version}, until {until}   {run.id}")
        for name, value in numbers(receipt):
            print(f"  {name}: {value}")
        print(f"  {command(run.name)}")


def numbers(receipt: Receipt) -> list[tuple[str, str]]:
    """What the gate saw, as text."""
    rates = [
        ("pass rate", receipt.pass_rate),
        ("grounded answers", receipt.grounded),
        ("finish rate", receipt.finish_rate),
        ("champion's pass rate", receipt.champion_pass_rate),
        ("baseline's pass rate", receipt.baseline_pass_rate),
    ]
    rows = [(name, f"{value:.1%}") for name, value in rates if value is not None]
    if limits := receipt.limits:
        rows.append(
            (
                "limits",
                f"pass {limits.min_pass_rate:.1%}, finish {limits.min_finish_rate:.1%}, "
                f"broken at most {limits.max_broken:.1%}, margin {limits.margin:+.1%}",
            )
        )
    return [*rows, ("verdict of the gate", "; ".join(receipt.reasons))]


def command(run: str) -> str:
    """What to type to let it go on."""
    return f"steptool approve {run} --by NAME --reason TEXT"


def decide(run: str, outcome: Outcome, by: str, reason: str) -> None:
    """Answer for the flow run with this id or name.

    Raises InputError if there is none, NotWaiting if it does not wait or it is too late.
    """
    if not (by.strip() and reason.strip()):
        raise InputError("a decision needs a name and a reason", fix="give both: --by NAME --reason TEXT")
    by, reason = one_line("the name", by, NAME_LENGTH), one_line("the reason", reason, REASON_LENGTH)
    decision = {"outcome": outcome, "by": by, "reason": reason}
    with server() as client:
        found = _find(client, run)
        proposal = Proposal.of_run(found.id)
        if not _waits(found) or proposal is None:
            state = found.state.name if found.state else "without a state"
            raise NotWaiting(
                f"does not wait for a decision: it is {state}", where=f"flow run {found.name}", fix=_SEE_WAITING
            )
        if outcome != "timed_out" and datetime.now(UTC) >= proposal.deadline:
            raise NotWaiting(
                f"the time to decide ended at {proposal.deadline.isoformat(timespec='seconds')}",
                where=f"flow run {found.name}",
                fix="propose it again: prefect deployment run promotion/promote",
            )
        _let_it_settle(found)
        answer = client.resume_flow_run(found.id, run_input=decision)
        if answer.status != SetStateStatus.ACCEPT:
            raise NotWaiting(
                f"was not taken: {getattr(answer.details, 'reason', None) or answer.status.value}",
                where=f"flow run {found.name}",
                fix=_SEE_WAITING,
            )
    receipt = proposal.receipt
    print(f"{outcome} by {decision['by']}: the receipt will be on {receipt.model} version {receipt.version}")


_SEE_WAITING = "`steptool approvals` lists what waits"


def _waits(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_paused()


def _let_it_settle(run: FlowRun) -> None:
    """A worker that is told to start a run again while the process that suspended it is still ending confuses the
    two, and the run crashes."""
    assert run.state is not None
    age = datetime.now(UTC) - run.state.timestamp
    time.sleep(max(0.0, SETTLE_S - age.total_seconds()))


def _find(client: SyncPrefectClient, run: str) -> FlowRun:
    """By id, else by name; where a name was given twice, the one that waits."""
    try:
        return client.read_flow_run(UUID(run))
    except ValueError:
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[run])))
    except ObjectNotFound:
        found = []
    if len(found) > 1:
        found = [candidate for candidate in found if _waits(candidate)] or found[:1]
    if len(found) != 1:
        what = f"{len(found)} flow runs of this name wait" if found else "no such flow run"
        raise InputError(what, where=run, fix=f"{_SEE_WAITING}, with their ids")
    return found[0]


_ENVIRONMENT = (
    "type: source .steptool/serve/environment (`make serve` writes it; `make services` another, and names it)"
)
"""How a terminal gets to know a server's address and password."""


@contextmanager
def server() -> Iterator[SyncPrefectClient]:
    """A client of the Prefect server that PREFECT_API_URL names; Prefect would start one of its own without.

    Raises InputError where it is not named or refuses the password, StepToolError where it does not answer.
    """
    url = PREFECT_API_URL.value()
    if not url:
        raise InputError("PREFECT_API_URL is not set", fix=_ENVIRONMENT)
    try:
        with get_client(sync_client=True) as client:
            yield client
    except httpx.HTTPStatusError as refused:
        if refused.response.status_code not in (401, 403):
            raise
        found = "is not its password" if PREFECT_API_AUTH_STRING.value() else "is not set"
        raise InputError(
            f"the Prefect server asks for a password, and PREFECT_API_AUTH_STRING {found}",
            where=url,
            fix=_ENVIRONMENT,
        ) from refused
    except httpx.TransportError as fault:
        raise StepToolError(
            f"the Prefect server does not answer: {fault}",
            where=url,
            fix="start it (`make serve`), or mend PREFECT_API_URL",
        ) from fault

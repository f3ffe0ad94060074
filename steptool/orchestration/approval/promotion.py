"""Promotion through the gate of `steptool promote`, and where a person's approval is due, with a wait for it.

                       refused ─> receipt                                    rejected, timed out ─> receipt
    candidate ─> gate ─┤                                                     │
                       passed ─> approval: none ─> promoted, receipt         │
                              └> approval: human ─> suspended ─> a decision ─┴> gate again ─> promoted or refused

A suspended run holds no process; resumed, the flow starts again from its first line and finds its question
and the answer on the server. Prefect's own timeout of a suspension ends the run as Failed without another line
of it run, so no receipt would say why. Instead a flow run of `end_wait` is scheduled for the deadline, and answers.
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from prefect import suspend_flow_run
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Completed, State

from steptool.core.errors import StepToolError
from steptool.core.fields import write_duration
from steptool.orchestration.approval.decisions import (
    Decision,
    NotWaiting,
    Proposal,
    command,
    decide,
    numbers,
    server,
    waiting,
)
from steptool.registry.promotion import AlreadyChampion
from steptool.registry.receipts import NAME_LENGTH, REASON_LENGTH, Approval, Receipt, shown
from steptool.stages.promote import Proposals

PROMOTE, EXPIRE = "promotion/promote", "expire-approval/expire"
"""The deployments of `promote_with_approval` and of `end_wait`."""
ARTIFACT = "promotion"


def promote_with_approval() -> State:
    """Make the registry's candidate the champion if the evidence, and a person where one is asked, allow it.

    The final state of the flow run that this runs in, which is suspended in between where a person is asked.
    """
    proposals = Proposals()
    proposal = Proposal.of_run()
    if proposal is None:
        try:
            receipt = proposals.assess()
        except AlreadyChampion as fault:
            return Completed(name="Unchanged", message=fault.found)
        if not (receipt.promoted and proposals.needs_approval):
            return _ended(proposals.promote(receipt.version or 0, by=_signature()))
        proposal = _ask(proposals, receipt)
    decision = suspend_flow_run(wait_for_input=Decision, key="approval")
    return _ended(_settle(proposals, proposal, decision))


def propose_candidate() -> State:
    """Start the deployment PROMOTE, unless the candidate has its verdict or waits for it.

    The promotion is a flow run of its own: it may wait for days.
    """
    proposals = Proposals()
    if proposals.has_verdict():
        return Completed(name="Unchanged", message="the candidate has its verdict")
    version = proposals.assess().version
    with server() as client:
        if any(proposal.receipt.version == version for _, proposal in waiting(client)):
            return Completed(name="Unchanged", message=f"version {version} waits for a decision already")
    run: FlowRun = run_deployment(PROMOTE, timeout=0, as_subflow=False)
    return Completed(name="Proposed", message=f"version {version}, by flow run {run.name}")


def end_wait(run: str, timeout: str) -> State:
    """Answer for the flow run with the id `run`, which has waited for `timeout`, unless somebody has answered."""
    try:
        decide(run, "timed_out", "nobody", f"nobody decided within {timeout}")
    except NotWaiting as fault:
        return Completed(message=f"nothing to do: {fault.found}")
    return Completed(message="timed out")


def _ask(proposals: Proposals, receipt: Receipt) -> Proposal:
    deadline = datetime.now(UTC) + proposals.timeout
    timeout = write_duration(proposals.timeout)
    try:
        expiry: FlowRun = run_deployment(
            EXPIRE,
            parameters={"run": str(flow_run.id), "timeout": timeout},
            scheduled_time=deadline,
            flow_run_name=f"{flow_run.name} times out",
            timeout=0,
            as_subflow=False,
        )
    except ObjectNotFound as fault:
        raise StepToolError(f"no deployment {EXPIRE}, which ends the wait", fix="`make deploy`") from fault
    proposal = Proposal(receipt=receipt, deadline=deadline, expiry=expiry.id)
    proposal.save()
    _show(receipt, f"**Waits for a decision until {deadline.isoformat(timespec='minutes')}.**\n\n{_commands()}")
    return proposal


def _settle(proposals: Proposals, proposal: Proposal, decision: Decision) -> Receipt:
    """Carry out what was decided. What came after the deadline counts as silence, even where no worker was there
    to end the wait in time."""
    _forget(proposal.expiry)
    at = _answered_at()
    # Prefect's page accepts any text, and a decision must not fail because of how it is worded.
    outcome, by = decision.outcome, shown(decision.by, NAME_LENGTH) or "nobody named"
    reason = shown(decision.reason, REASON_LENGTH) or "no reason given"
    if outcome != "timed_out" and at > proposal.deadline:
        outcome, reason = "timed_out", shown(f"{outcome} by {by} after the deadline: {reason}", REASON_LENGTH)
    approval = Approval(outcome=outcome, by=by, reason=reason, at=at.isoformat(timespec="seconds"))
    if outcome != "approved":
        return proposals.reject(proposal.receipt, approval)
    return proposals.promote(proposal.receipt.version or 0, by=by, approval=approval)


def _answered_at() -> datetime:
    """When this run was resumed, by the server's clock: nobody can give another time."""
    with server() as client:
        states = client.read_flow_run_states(UUID(flow_run.id))
    return max(state.timestamp for state in states if state.name == "Resuming")


def _forget(expiry: UUID) -> None:
    """Take the end of the wait off the schedule; one that is under way finds nothing to do."""
    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(expiry)
        except ObjectNotFound:
            return
        if run.state is not None and run.state.is_scheduled():
            client.delete_flow_run(expiry)


def _ended(receipt: Receipt) -> State:
    _show(receipt, f"**{receipt.verdict}**, by {receipt.by} at {receipt.at}")
    said = f"{receipt.model} version {receipt.version}: {'; '.join(receipt.reasons)}"
    return Completed(name=receipt.verdict.capitalize(), message=said)


def _show(receipt: Receipt, text: str) -> None:
    rows = "\n".join(f"| {name} | {value} |" for name, value in numbers(receipt))
    markdown = f"# {receipt.model} version {receipt.version}\n\n{text}\n\n| the gate | |\n| --- | --- |\n{rows}\n"
    create_markdown_artifact(markdown, key=ARTIFACT, description=f"Promotion of {receipt.model} {receipt.version}")


def _commands() -> str:
    approve = command(str(flow_run.name))
    return f"```\n{approve}\n{approve.replace(' approve ', ' reject ')}\n```"


def _signature() -> str:
    return f"flow run {flow_run.name}"

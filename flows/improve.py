"""What a schedule or new data starts: the whole graph, then the proposal of the candidate that came out."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.states import Completed, State

from flows.pipeline import pipeline
from steptool.orchestration.approval.decisions import server, waiting
from steptool.stages.promote import Proposals

PROMOTE = "promotion/promote"


@flow(name="improve", persist_result=False)
def improve(gpu: str | None = None, again: bool = False, fresh: bool = False) -> State:
    """Bring everything up to date; run `promotion/promote` unless the candidate has its verdict or waits for it.

    gpu, again, fresh: see `flows.pipeline.pipeline`. The promotion is a flow run of its own: it may wait for days.
    """
    pipeline(None, gpu, again, fresh)
    proposals = Proposals()
    if proposals.has_verdict():
        return Completed(name="Unchanged", message="the candidate has its verdict")
    version = proposals.assess().version
    with server() as client:
        if any(proposal.receipt.version == version for _, proposal in waiting(client)):
            return Completed(name="Unchanged", message=f"version {version} waits for a decision already")
    run: FlowRun = run_deployment(PROMOTE, timeout=0, as_subflow=False)
    return Completed(name="Proposed", message=f"version {version}, by flow run {run.name}")

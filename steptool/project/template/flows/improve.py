"""What a schedule or new data starts: the whole graph, then the proposal of the candidate that came out."""

from __future__ import annotations

from prefect import flow
from prefect.states import State

from flows.pipeline import pipeline
from steptool.orchestration.approval.promotion import propose_candidate


@flow(name="improve", persist_result=False)
def improve(gpu: str | None = None, again: bool = False, fresh: bool = False) -> State:
    """Bring everything up to date; run `promotion/promote` unless the candidate has its verdict or waits for it.

    gpu, again, fresh: see `flows.pipeline.pipeline`.
    """
    pipeline(None, gpu, again, fresh)
    return propose_candidate()

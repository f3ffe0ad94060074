"""The candidate through the gate, and past a person where `promote.approval` is human."""

from __future__ import annotations

from prefect import flow
from prefect.states import State

from steptool.orchestration.approval.decisions import PROMOTION
from steptool.orchestration.approval.promotion import end_wait, promote_with_approval


@flow(name=PROMOTION, persist_result=False)
def promotion() -> State:
    """Make the registry's candidate the champion if the evidence, and a person where one is asked, allow it."""
    return promote_with_approval()


@flow(name="expire-approval", persist_result=False)
def expire(run: str, timeout: str) -> State:
    """Answer for the flow run with the id `run`, which has waited for `timeout`, unless somebody has answered."""
    return end_wait(run, timeout)

"""`steptool promote` and `steptool rollback`: not stages of the graph, since a person decides when.

`Proposals` is the gate with the settings of params.yaml: the command and the promotion flow go through it alike.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from steptool.config.places import PARAMS
from steptool.config.settings import load_params
from steptool.core.errors import InputError
from steptool.registry.gate import Gate
from steptool.registry.models import CANDIDATE
from steptool.registry.promotion import assess, has_verdict, promote, reject, rollback
from steptool.registry.receipts import Approval, Receipt
from steptool.tracking.run import Tracking


class Proposals:
    """The registry's gate in the working directory; see `steptool.registry.promotion`."""

    def __init__(self) -> None:
        params = load_params(PARAMS)
        self.needs_approval = params.promote.approval == "human"
        self.timeout = params.promote.approval_timeout
        self._tracking = Tracking(None, params.tracking.experiment)
        self._name = params.tracking.model_name
        self._gate = Gate(
            limits=params.promote,
            resamples=params.evaluate.resamples,
            confidence=params.evaluate.confidence,
            seed=params.seed,
        )

    def assess(self) -> Receipt:
        """What the gate says of the candidate; stores nothing."""
        return assess(self._tracking, self._name, self._gate)

    def has_verdict(self) -> bool:
        return has_verdict(self._tracking, self._name)

    def promote(
        self, which: str | int = CANDIDATE, *, by: str | None = None, approval: Approval | None = None
    ) -> Receipt:
        return promote(self._tracking, self._name, self._gate, which=which, by=by, approval=approval)

    def reject(self, proposed: Receipt, approval: Approval) -> Receipt:
        return reject(self._tracking, proposed, approval)

    def roll_back(self, reason: str, by: str) -> Receipt:
        return rollback(self._tracking, self._name, reason=reason, by=by)


def promote_candidate(by: str, reason: str | None) -> None:
    """Exit status 1 where the evidence does not suffice; the receipt is stored either way.

    With `promote.approval: human` whoever types the command is the person asked, so a reason is due.
    """
    proposals = Proposals()
    if proposals.needs_approval and not (reason or "").strip():
        raise InputError(
            "promote.approval is human: a promotion needs a reason",
            where=str(PARAMS),
            fix="add --reason TEXT, or run the deployment `promotion/promote` and `steptool approve` it",
        )
    approval = Approval(outcome="approved", by=by, reason=reason, at=utc_now()) if reason is not None else None
    receipt = proposals.promote(by=by, approval=approval)
    _show(receipt)
    if not receipt.promoted:
        sys.exit(1)


def roll_back(by: str, reason: str) -> None:
    _show(Proposals().roll_back(reason, by))


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _show(receipt: Receipt) -> None:
    verdict = receipt.verdict.replace("_", " ")
    print(f"{receipt.model} version {receipt.version}: {verdict}, by {receipt.by} at {receipt.at}")
    for reason in receipt.reasons:
        print(f"  {reason}")

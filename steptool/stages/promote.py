"""`steptool promote` and `steptool rollback`: not stages of the graph, since a person decides when."""

from __future__ import annotations

import sys

from steptool.params import load_params
from steptool.registry.promotion import Receipt, promote, rollback
from steptool.registry.tracking import Tracking
from steptool.stages.common import PARAMS


def promote_candidate(by: str) -> None:
    """Exit status 1 where the evidence does not suffice; the receipt is stored either way."""
    params = load_params(PARAMS)
    receipt = promote(
        Tracking(None, params.tracking.experiment),
        params.tracking.model_name,
        params.promote,
        resamples=params.evaluate.resamples,
        confidence=params.evaluate.confidence,
        seed=params.seed,
        by=by,
    )
    _show(receipt)
    if not receipt.promoted:
        sys.exit(1)


def roll_back(by: str, reason: str) -> None:
    params = load_params(PARAMS)
    _show(rollback(Tracking(None, params.tracking.experiment), params.tracking.model_name, reason=reason, by=by))


def _show(receipt: Receipt) -> None:
    verdict = receipt.verdict.replace("_", " ")
    print(f"{receipt.model} version {receipt.version}: {verdict}, by {receipt.by} at {receipt.at}")
    for reason in receipt.reasons:
        print(f"  {reason}")

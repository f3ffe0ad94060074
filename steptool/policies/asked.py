"""What came of asking an engine for a policy's canary (`steptool.policies.canary`)."""

from __future__ import annotations

from steptool.core.types import Frozen


class Asked(Frozen):
    tokens: int
    difference: float
    """Mean difference between the engine and the trainer at these tokens, in nats."""
    moved: float
    """Mean difference that the training made there, in nats."""

"""An action as it was sampled: read, or refused where the engine makes no sense. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from steptool.core.types import Step, Task, content_hash
from steptool.engines.base import Generation
from steptool.formats.base import Format

NOT_FINITE = "the engine returned a log-probability that is not finite"
"""What `Trajectory.error` ends with where the policy computes NaN or infinities."""


def seed_of(*parts: int | str) -> int:
    """A seed of its own for each action: what is sampled does not depend on which requests share a batch."""
    return int(content_hash(list(parts), 8), 16)


def step_of(
    generation: Generation, context: Sequence[int], format: Format, task: Task, state: str | None = None
) -> Step:
    """What was sampled behind `context`, the tokens since the action before, in a `state` of the world. Raises
    ValueError for what no engine should return.
    """
    if not generation.ids:
        raise ValueError("the engine returned no tokens")
    if len(generation.ids) != len(generation.logprobs):
        raise ValueError(
            f"the engine returned {len(generation.ids)} tokens but {len(generation.logprobs)} log-probabilities"
        )
    if not all(map(math.isfinite, generation.logprobs)):
        raise ValueError(NOT_FINITE)
    action = format.parse(generation.ids, task)
    if action.unreadable is not None and not generation.stopped:
        cut = f"{action.unreadable} (cut after {len(generation.ids)} tokens)"
        action = action.model_copy(update={"unreadable": cut})
    return Step(
        action=action,
        context_ids=tuple(context),
        action_ids=generation.ids,
        action_logprobs=generation.logprobs,
        state=state,
    )

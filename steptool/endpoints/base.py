"""The protocol of endpoints: a policy without weights here, as an arm of the evaluation.

arms: {gpt: {endpoint: {url: 'https://api.openai.com/v1', model: gpt-x, key: OPENAI_API_KEY}}}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from steptool.core.types import Conditions, Revision, Sampling, Task, Trajectory


class Acting(Protocol):
    """What attempts tasks: a sampler with a policy loaded, or an endpoint."""

    policy: Revision

    def conditions(self, sampling: Sampling) -> Conditions:
        """What decides about an attempt beside policy and seed."""
        ...

    def attempts(
        self, tasks: Sequence[Task], sampling: Sampling, attempts: int, *, what: str, max_broken: float
    ) -> list[Trajectory]:
        """`attempts` at every task, in the order of the tasks. Raises what `refuse_broken` raises."""
        ...

"""The protocol of endpoints: a policy without weights here, as an arm of the evaluation.

arms: {gpt: {endpoint: {url: 'https://api.openai.com/v1', model: gpt-x, key: OPENAI_API_KEY}}}

class Endpoint:
    class Config(Settings): ...
    deciding: ClassVar[Sequence[str]]      settings that decide what it answers; the others make no evaluation stale
    def __init__(self, config, world: World, search: Search, *, world_revision, search_revision, tool_timeout_s): ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from steptool.core.types import Conditions, Frozen, Revision, Sampling, Task, Trajectory


class Spent(Frozen):
    """What answers have cost."""

    answers: int = 0
    """That were paid for; what was kept from before is not."""
    prompt_tokens: int = 0
    tokens: int = 0
    money: float = 0.0

    def since(self, before: Spent) -> Spent:
        return Spent(
            answers=self.answers - before.answers,
            prompt_tokens=self.prompt_tokens - before.prompt_tokens,
            tokens=self.tokens - before.tokens,
            money=self.money - before.money,
        )

    def __str__(self) -> str:
        money = f", {self.money:.4g} of money" if self.money else ""
        return f"{self.answers} answers paid for, {self.prompt_tokens} tokens in, {self.tokens} out{money}"


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


class Endpoint(Acting, Protocol):
    """Its conditions name format and engine `core.types.ENDPOINT`, and world and search as it is given them."""

    @property
    def spent(self) -> Spent:
        """Since it was made."""
        ...

    def close(self) -> None: ...

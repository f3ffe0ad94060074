"""What samples tokens: the protocol that every engine speaks.

class Remote:
    class Config(Settings): ...
    def __init__(self, config: Config, policy: Path, *, dtype, max_model_len: int, concurrency: int, seed: int): ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from steptool.core.types import content_hash


@dataclass(frozen=True)
class Request:
    """Sample until one of `stop_ids`, or `max_tokens` tokens."""

    prompt_ids: Sequence[int]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop_ids: Sequence[int]

    def seeded(self, seed: int) -> Request:
        """As an engine of that seed samples it: with a seed that depends on both."""
        return replace(self, seed=int(content_hash([seed, self.seed], 8), 16))


@dataclass(frozen=True)
class Generation:
    """What the engine sampled: `ids` end in a stop token where `stopped`, else they ran into max_tokens.

    `logprobs` are the natural logs of the probabilities each id was sampled with.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool


class Engine(Protocol):
    async def generate(self, request: Request) -> Generation:
        """Any exception ends the one attempt that asked."""
        ...

    def load(self, policy: Path) -> None:
        """Generate from another policy from now on, once nothing is generating. Raises ModelError where it cannot."""
        ...

    def close(self) -> None:
        """Free what it holds. May be called twice."""
        ...

    # Optional: `takes_adapters: ClassVar[bool] = True`. Such an engine is given the folder of the policy as it is, an
    # adapter, too (`steptool.policies.folder.resolve_policy`); any other is given plain weights, merged for it.
    #
    # Optional: `async def logprobs(self, ids: Sequence[int]) -> Sequence[float]`, the natural log of the probability of
    # every token of a stream but its first, at temperature 1. An engine that has it is asked for the policy's canary
    # (steptool.policies.canary) each time it loads one.

"""An engine without a model: it repeats the last tokens of its prompt, as many as it may, and stops.

engine: {use: 'parrot:Parrot'}
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import ClassVar

from steptool.core.fields import Settings
from steptool.engines.base import Generation, Request

LOGPROB = -0.5


class Parrot:
    name: ClassVar[str] = "parrot"

    class Config(Settings):
        most: int = 8
        """Tokens that it repeats."""

    def __init__(
        self, config: Config, policy: Path, *, dtype: str, max_model_len: int, concurrency: int, seed: int
    ) -> None:
        self.config, self._seed = config, seed

    async def generate(self, request: Request) -> Generation:
        said = random.Random(f"{self._seed} {request.seed}").sample(list(request.prompt_ids), self.config.most)
        plain = [token for token in said if token not in request.stop_ids][: request.max_tokens - 1]
        ids = (*plain, request.stop_ids[0])
        return Generation(ids, (LOGPROB,) * len(ids), stopped=True)

    def load(self, policy: Path) -> None:
        """Every policy says the same."""

    def close(self) -> None:
        """There is nothing to free."""

"""What requests may cost, so that a ceiling is never passed: each reserves the most that it can cost before it is sent.

spent + reserved + this request  ≤  ceiling      it is sent
else, while others are on the way                it waits: they cost less than they reserved
else                                             CeilingReached
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from steptool.core.errors import StepToolError
from steptool.endpoints.base import Spent
from steptool.endpoints.settings import EndpointSettings

MILLION = 1_000_000


class CeilingReached(StepToolError):
    """The next request could cost more than is left. What was paid for is kept."""


class Budget:
    """Belongs to one event loop. `spent` reads the ledger."""

    def __init__(self, settings: EndpointSettings, spent: Callable[[], Spent]) -> None:
        self._settings, self._spent = settings, spent
        self._tokens, self._money, self._under_way = 0, 0.0, 0
        self._settled = asyncio.Condition()

    def money(self, prompt_tokens: int, tokens: int) -> float:
        return (prompt_tokens * self._settings.price_in + tokens * self._settings.price_out) / MILLION

    @asynccontextmanager
    async def reserved(self, prompt_tokens: int, tokens: int) -> AsyncIterator[None]:
        """Room for a request of so many tokens at most, until the block ends. Raises CeilingReached."""
        money = self.money(prompt_tokens, tokens)
        async with self._settled:
            while problem := self._problem(prompt_tokens + tokens, money):
                if not self._under_way:
                    raise problem
                await self._settled.wait()
            self._change(prompt_tokens + tokens, money, 1)
        try:
            yield
        finally:
            async with self._settled:
                self._change(-(prompt_tokens + tokens), -money, -1)
                self._settled.notify_all()

    def _change(self, tokens: int, money: float, requests: int) -> None:
        self._tokens += tokens
        self._money += money
        self._under_way += requests

    def _problem(self, tokens: int, money: float) -> CeilingReached | None:
        most, most_tokens = self._settings.ceiling, self._settings.ceiling_tokens
        if most is None and most_tokens is None:
            return None
        spent = self._spent()
        if most is not None and spent.money + self._money + money > most:
            return self._reached(f"{spent.money:.4g} of {most:g} are spent, and the next request may cost {money:.2g}",
                                 "ceiling")  # fmt: skip
        used = spent.prompt_tokens + spent.tokens
        if most_tokens is not None and used + self._tokens + tokens > most_tokens:
            return self._reached(f"{used} of {most_tokens} tokens are used, and the next request may take {tokens}",
                                 "ceiling_tokens")  # fmt: skip
        return None

    def _reached(self, found: str, setting: str) -> CeilingReached:
        return CeilingReached(
            f"the ceiling is reached: {found}",
            where=f"{self._settings.model} at {self._settings.url}",
            fix=f"raise `{setting}` of the endpoint and run the same command again: what was paid for is in "
            f"{self._settings.store} and is not asked again",
        )

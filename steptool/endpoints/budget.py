"""What requests may cost, so that a ceiling is never passed: each reserves the most that it can cost before it is sent.

spent + reserved + this request  ≤  ceiling      it is sent
else, while others are on the way                it waits: they cost less than they reserved
else                                             CeilingReached

What is spent and reserved stands in the ledger, so that processes that run side by side keep one ceiling.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from steptool.core.errors import StepToolError
from steptool.endpoints.ledger import Ledger
from steptool.endpoints.settings import EndpointSettings

MILLION = 1_000_000
LOOK_S = 0.5
"""How often a request that waits looks what those of other processes have cost."""


class CeilingReached(StepToolError):
    """The next request could cost more than is left. What was paid for is kept."""


class Budget:
    """Belongs to one event loop."""

    def __init__(self, settings: EndpointSettings, ledger: Ledger) -> None:
        self._settings, self._ledger = settings, ledger
        self._settled = asyncio.Condition()

    def money(self, prompt_tokens: int, tokens: int) -> float:
        return (prompt_tokens * self._settings.price_in + tokens * self._settings.price_out) / MILLION

    @asynccontextmanager
    async def reserved(self, prompt_tokens: int, tokens: int) -> AsyncIterator[None]:
        """Room for a request of so many tokens at most, until the block ends. Raises CeilingReached."""
        if self._settings.ceiling is None and self._settings.ceiling_tokens is None:
            yield
            return
        money = self.money(prompt_tokens, tokens)
        async with self._settled:
            while (number := self._reserve(prompt_tokens + tokens, money)) is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._settled.wait()
        try:
            yield
        finally:
            async with self._settled:
                self._ledger.release(number)
                self._settled.notify_all()

    def _reserve(self, tokens: int, money: float) -> int | None:
        """The number of the reservation; None while there is no room for it, but may be soon."""
        most, most_tokens = self._settings.ceiling, self._settings.ceiling_tokens
        with self._ledger.alone():
            spent, others = self._ledger.spent(), self._ledger.reserved()
            used = spent.prompt_tokens + spent.tokens
            if most is not None and spent.money + others.money + money > most:
                found = f"{spent.money:.4g} of {most:g} are spent, and the next request may cost {money:.2g}"
                problem = self._reached(found, "ceiling")
            elif most_tokens is not None and used + others.tokens + tokens > most_tokens:
                found = f"{used} of {most_tokens} tokens are used, and the next request may take {tokens}"
                problem = self._reached(found, "ceiling_tokens")
            else:
                return self._ledger.reserve(tokens, money)
        if not others.requests:
            raise problem
        return None

    def _reached(self, found: str, setting: str) -> CeilingReached:
        return CeilingReached(
            f"the ceiling is reached: {found}",
            where=f"{self._settings.model} at {self._settings.url}",
            fix=f"raise `{setting}` of the endpoint and run the same command again: what was paid for is in "
            f"{self._settings.store} and is not asked again",
        )

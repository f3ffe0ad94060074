"""A stand-in for the engine, for tests: it says what it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from steptool.rollouts.rollout import Generation

LOGPROB = -0.5
"""Log-probability that it claims for every token."""


@dataclass
class ScriptedGenerator:
    """Gives the actions of a script in turn, whoever asks; each is token ids, a Generation or an exception to raise.

    An action longer than `max_tokens` is cut there, as an engine does. Asked for more than the script holds,
    it raises IndexError. `prompts` and `asked` keep what it was asked for.
    """

    script: Iterable[Sequence[int] | Generation | Exception]
    prompts: list[tuple[int, ...]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._script = list(self.script)

    async def generate(self, prompt_ids: Sequence[int], **options: Any) -> Generation:
        await asyncio.sleep(0)  # others get their turn, as they do while an engine works
        turn = len(self.prompts)
        self.prompts.append(tuple(prompt_ids))
        self.asked.append(options)
        if turn >= len(self._script):
            raise IndexError(f"the script holds {len(self._script)} actions and was asked for one more")
        action = self._script[turn]
        if isinstance(action, Exception):
            raise action
        return action if isinstance(action, Generation) else spoken(action, **options)


@dataclass
class AnsweringGenerator:
    """Gives the action that `act` chooses for a prompt: for many rollouts at once."""

    act: Callable[[tuple[int, ...]], Sequence[int]]

    async def generate(self, prompt_ids: Sequence[int], **options: Any) -> Generation:
        await asyncio.sleep(0)
        return spoken(self.act(tuple(prompt_ids)), **options)


def spoken(ids: Sequence[int], *, max_tokens: int, stop_ids: Sequence[int], **_: Any) -> Generation:
    """`ids` as an engine would have sampled them: cut at `max_tokens`, stopped where the last is a stop token."""
    kept = tuple(ids[:max_tokens])
    return Generation(kept, (LOGPROB,) * len(kept), stopped=bool(kept) and kept[-1] in stop_ids)

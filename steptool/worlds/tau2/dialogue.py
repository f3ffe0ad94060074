"""The user, whose part a model behind an OpenAI-compatible endpoint plays.

    the benchmark's guidelines and the task's scenario        its system message, which no policy sees
    "Hi! How can I help you today?"                           what the agent says first, always the same
    the first message                                         the task's query, asked for as the tasks are made
    what the policy says, what the user says, …               until the user says a word that ends it

Answers are kept by the whole conversation and the seed, so the same attempt gets the same user again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from steptool.core.errors import WorldError
from steptool.endpoints.chat import Reply, TooLong
from steptool.endpoints.client import Client, EndpointFailed
from steptool.endpoints.settings import PartSettings
from steptool.system.progress import Advance, progress

GREETING = "Hi! How can I help you today?"
"""What the benchmark's agent says first."""
ENDS = ("###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###")
"""A message with one of these ends the conversation, and is not shown."""
TRIES = 3
"""Answers that are asked for, until one is a message."""
OTHERWISE = "raise max_completion_tokens of world.user, or give it another model, or a `store` without these answers"
SILENCE = "..."
"""What the user hears where the policy says nothing: some servers refuse an empty message."""


class UserModel:
    """Plays the users of all sessions. `guidelines`: what it is told of its part, whatever the task.

    Raises what `Client` raises.
    """

    def __init__(self, settings: PartSettings, guidelines: str) -> None:
        self._settings = settings
        self._guidelines = settings.system or guidelines
        self._client = Client(settings)

    def openings(self, scenarios: Mapping[str, str]) -> dict[str, str]:
        """The first message of each scenario, by its name. Raises what `reply` raises, and WorldError for a user who
        ends the conversation before it begins."""
        with progress("ask the users for their first messages", len(scenarios), "messages") as advance:
            return asyncio.run(self._openings(scenarios, advance))

    async def _openings(self, scenarios: Mapping[str, str], advance: Advance) -> dict[str, str]:
        at_once = asyncio.Semaphore(self._settings.concurrency)

        async def opening(name: str) -> str:
            async with at_once:
                for number in range(TRIES):
                    if (text := await self.reply(scenarios[name], [GREETING], seed=number)) is not None:
                        advance(1)
                        return text
            raise self._fault(f"task {name}: the user ends the conversation with the first message", OTHERWISE)

        return dict(zip(scenarios, await asyncio.gather(*map(opening, scenarios)), strict=True))

    async def reply(self, scenario: str, said: Sequence[str], seed: int) -> str | None:
        """The next message of a user; None where it ends the conversation. `said`: what agent and user said in turn,
        the agent first and last.

        Raises WorldError where no message comes, and what `Client.ask` raises where none ever can.
        """
        temperature = self._settings.temperature
        told = f"{self._guidelines}\n\n<scenario>\n{scenario}\n</scenario>"
        asked = [{"role": "system", "content": told}]
        asked += [
            {"role": "assistant" if number % 2 else "user", "content": text.strip() or SILENCE}
            for number, text in enumerate(said)
        ]
        problem = ""
        for number in range(TRIES):
            try:
                answer = await self._client.ask(
                    asked,
                    (),
                    most=self._settings.max_completion_tokens,
                    attempt=seed * TRIES + number,
                    temperature=None if temperature == "default" else temperature,
                )
            except (EndpointFailed, TooLong) as fault:
                raise self._fault(str(fault), "run the same command again: what was answered is kept") from None
            text = _spoken(answer)
            if any(word in text for word in ENDS):
                return None
            if text and answer.finish != "length":
                return text
            problem = "its message is cut at max_completion_tokens" if answer.finish == "length" else "it says nothing"
        raise self._fault(f"{problem}, {TRIES} times", OTHERWISE)

    def close(self) -> None:
        """May be called twice."""
        self._client.close()

    def _fault(self, found: str, fix: str) -> WorldError:
        return WorldError(found, where=f"world.user, {self._settings.model} at {self._settings.url}", fix=fix)


def _spoken(answer: Reply) -> str:
    """What it says aloud: some servers leave a model's thoughts in its text, and they tell of its instructions."""
    return answer.text.rpartition("</think>")[2].partition("<think>")[0].strip()

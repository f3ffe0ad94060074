"""Asks the model behind a judge's endpoint one question, and once more where its answer cannot be used.

    question ─► answer ─► read? done
                  └── told what is wrong with it ─► answer ─► read? done
                                                      └── no answer: no scores, counted, never a 0

Every answer is kept by what was asked and the number of the vote, so the same question costs nothing again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field

from steptool.annotators.judge_answers import Unusable
from steptool.annotators.judge_prompt import Schema
from steptool.core.errors import StepToolError
from steptool.core.fields import Fraction, Many, Positive
from steptool.endpoints.chat import Reply, TooLong
from steptool.endpoints.client import Client, EndpointFailed
from steptool.endpoints.settings import DECIDING, EndpointSettings

Read = TypeVar("Read")
DECIDE = (*DECIDING, "votes", "structured", "price_in", "price_out")
"""Settings that decide what a judgement says, its cost included."""
FEWEST_FAILED = 3
"""Requests that must have failed before a judge is given up."""
MOST_SAID = 2000
"""Characters of an unusable answer that its model is shown again."""
MILLION = 1_000_000


class JudgeSettings(EndpointSettings):
    """Of the endpoint, as `docs/endpoints.md` has them, and of the judge. `system` is added to what it is told: what
    counts as solved in this project."""

    votes: Annotated[Many, Field(le=99)] = 1
    """How often each question is asked; scores are means over the votes that can be used."""
    structured: Literal["json_schema", "json_object", "none"] = "json_schema"
    """What the endpoint is sent as `response_format`; none where it takes none."""
    max_observation: Positive = 4000
    """Characters of a text that the judge is shown."""
    temperature: Annotated[float, Field(ge=0, le=2)] | Literal["default"] | None = "default"
    """default: it is not sent. Votes differ only where it is above 0."""
    max_failed: Fraction = 0.1
    """Share of requests that may fail for good; those attempts stay without scores. More, and the judge stops."""


@dataclass
class Answer(Generic[Read]):
    """What came of one question."""

    value: Read | None
    """None where no answer could be used."""
    problem: str = ""
    """Why."""
    cost: float = 0.0
    """Of all tries, by the tokens that the endpoint counts."""


@dataclass
class Counts:
    asked: int = 0
    """Questions."""
    unusable: int = 0
    """Of these, that got no usable answer in two tries."""
    mended: int = 0
    """That got one in the second."""
    failed: int = 0
    """That the endpoint failed to answer, after all its tries."""


class Asking:
    """Raises what `Client` raises."""

    def __init__(self, config: JudgeSettings) -> None:
        self.config, self.counts = config, Counts()
        self._client = Client(config)
        self._free: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    async def ask(
        self, told: str, question: str, schema: Schema, read: Callable[[str], Read], *, vote: int
    ) -> Answer[Read]:
        """Raises CeilingReached and EndpointRefuses, and StepToolError where too many requests fail; what was answered
        until then is kept."""
        shape = "" if self.config.structured == "json_schema" else f"Its shape as a JSON schema: {json.dumps(schema)}"
        system = "\n\n".join(filter(None, [told, shape, self.config.system]))
        chat: list[dict[str, Any]] = [
            {"role": "system", "content": system},
            {"role": "user", "content": question},
        ]
        answer: Answer[Read] = Answer(None)
        self.counts.asked += 1
        async with self._turn():
            for is_again in (False, True):
                try:
                    reply = await self._reply(chat, schema, vote)
                except TooLong:
                    answer.problem = "the transcript is too long for the judge"
                    break
                except EndpointFailed as fault:
                    self._refuse_more_failures(fault)
                    answer.problem = f"the endpoint failed: {fault}"
                    return answer
                answer.cost += self._cost(reply)
                try:
                    answer.value = read(reply.text)
                except Unusable as problem:
                    answer.problem = _said(reply) or str(problem)
                    chat += [
                        {"role": "assistant", "content": reply.text[:MOST_SAID] or "(nothing)"},
                        {"role": "user", "content": f"That cannot be used: {problem}. Answer again, as asked above."},
                    ]
                    continue
                self.counts.mended += is_again
                return answer
        self.counts.unusable += 1
        return answer

    def close(self) -> None:
        self._client.close()

    async def _reply(self, chat: list[dict[str, Any]], schema: Schema, vote: int) -> Reply:
        temperature = self.config.temperature
        wanted: dict[str, Any] | None = None
        if self.config.structured != "none":
            wanted = {"type": self.config.structured}
        if self.config.structured == "json_schema":
            wanted = {"type": "json_schema", "json_schema": {"name": "judgement", "strict": True, "schema": schema}}
        return await self._client.ask(
            chat,
            (),
            most=self.config.max_completion_tokens,
            attempt=vote,
            temperature=temperature if isinstance(temperature, float | int) else None,
            response_format=wanted,
        )

    def _turn(self) -> asyncio.Semaphore:
        """Of the loop that is running: annotators are used on one after the other."""
        loop = asyncio.get_running_loop()
        if self._free is None or self._free[0] is not loop:
            self._free = loop, asyncio.Semaphore(self.config.concurrency)
        return self._free[1]

    def _cost(self, reply: Reply) -> float:
        sent = (reply.prompt_tokens or 0) * self.config.price_in
        return (sent + (reply.tokens or 0) * self.config.price_out) / MILLION

    def _refuse_more_failures(self, fault: EndpointFailed) -> None:
        self.counts.failed += 1
        asked, failed = self.counts.asked, self.counts.failed
        if failed >= FEWEST_FAILED and failed > self.config.max_failed * asked:
            raise StepToolError(
                f"{failed} of {asked} questions got no answer: {fault}",
                where=f"the judge {self.config.model} at {self.config.url}",
                fix="see whether it answers (where it takes no response_format, set annotate.structured: none), and "
                "run the same command again: what was answered is kept",
            ) from None


def _said(reply: Reply) -> str:
    """Why an answer is none, where the endpoint says so."""
    if reply.finish == "length":
        return "its answer was cut; raise max_completion_tokens"
    return "it refused: content_filter" if reply.finish == "content_filter" else ""

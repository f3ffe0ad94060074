"""A model behind an OpenAI-compatible endpoint as a policy: it attempts tasks by messages, in our budget of actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar
from urllib.parse import urlsplit

from steptool.core.errors import StepToolError
from steptool.core.fields import MOST
from steptool.core.revision import MEANS_NOTHING, code_revision
from steptool.core.types import ENDPOINT, Conditions, Revision, Sampling, Task, Trajectory, content_hash
from steptool.endpoints.base import Spent
from steptool.endpoints.chat import Chat, Reply
from steptool.endpoints.client import Client
from steptool.endpoints.settings import DECIDING, EndpointSettings
from steptool.endpoints.spoken import Spoken, without_tokens
from steptool.rollouts.base import Attempt, Search
from steptool.rollouts.tries import refuse_broken, tried
from steptool.worlds.base import World

ITS_OWN_TEMPERATURE = 1.0
"""Of OpenAI's API, where none is sent."""
MOST_MESSAGES = MOST
"""Of an attempt, where a message is a token: `max_calls` bounds them."""


class Endpoint:
    """Attempts tasks of `world` by `search`, as our own policies do; their revisions are those of `conditions`.

    Raises what `Client` raises.
    """

    name: ClassVar[str] = ENDPOINT
    deciding: ClassVar[tuple[str, ...]] = DECIDING
    Config: ClassVar[type[EndpointSettings]] = EndpointSettings

    def __init__(
        self,
        config: EndpointSettings,
        world: World,
        search: Search,
        *,
        world_revision: Revision,
        search_revision: Revision,
        tool_timeout_s: float,
    ) -> None:
        self.config, self._world, self._search = config, world, search
        self._world_revision, self._search_revision = world_revision, search_revision
        self._tool_timeout_s = tool_timeout_s
        self.policy = policy_of(config)
        self._client = Client(config)
        self._before = self._client.spent
        self._stop: StepToolError | None = None
        """Why no further request can succeed."""

    @property
    def spent(self) -> Spent:
        """Since this was made."""
        return self._client.spent.since(self._before)

    def conditions(self, sampling: Sampling) -> Conditions:
        """`sampling` is our policies': its budget of actions holds here, too; tokens are of another kind."""
        decided = {key: self.config.model_dump(mode="json")[key] for key in DECIDING}
        temperature = self._temperature(sampling.temperature)
        update = {
            "temperature": ITS_OWN_TEMPERATURE if temperature is None else temperature,
            "max_step_tokens": self.config.max_completion_tokens,
        }
        return Conditions(
            world=self._world_revision,
            format=Revision(name=ENDPOINT, revision=code_revision([Spoken.__module__], without=MEANS_NOTHING)),
            engine=Revision(name=ENDPOINT, revision=content_hash(decided)),
            dtype=None,
            search=self._search_revision,
            sampling=sampling.model_copy(update=update),
        )

    def attempts(
        self, tasks: Sequence[Task], sampling: Sampling, attempts: int, *, what: str, max_broken: float
    ) -> list[Trajectory]:
        """`attempts` at every task, in the order of the tasks. Raises CeilingReached and EndpointRefuses, and what
        `refuse_broken` raises; what was answered until then is kept, and not asked again.
        """
        made = self.attempted(tasks, sampling, attempts, what=what)
        refuse_broken(made, max_broken, engine=f"see whether {self.config.url} answers")
        return made

    def attempted(self, tasks: Sequence[Task], sampling: Sampling, attempts: int, *, what: str) -> list[Trajectory]:
        """The same, broken ones included."""
        conditions, temperature = self.conditions(sampling), self._temperature(sampling.temperature)
        numbered = [(task, number) for task in tasks for number in range(attempts)]
        jobs = [partial(self._attempt, task, number, conditions, temperature) for task, number in numbered]
        try:
            return [found[0] for found in tried(jobs, self.config.concurrency, what=what)]
        except BaseExceptionGroup as group:
            if self._stop is not None:
                raise self._stop from None
            raise group from None

    async def _attempt(
        self, task: Task, number: int, conditions: Conditions, temperature: float | None
    ) -> Sequence[Trajectory]:
        """One search. Raises what keeps every further request from succeeding, so that the other attempts end, too."""

        async def ask(chat: Chat, tools: Sequence[Mapping[str, Any]], most: int) -> Reply:
            try:
                return await self._client.ask(chat, tools, most=most, attempt=number, temperature=temperature)
            except StepToolError as stop:
                self._stop = stop
                raise

        spoken = Spoken(ask, max_observation=self.config.max_observation, system=self.config.system)
        of_messages = {"max_tokens": MOST_MESSAGES}
        attempt = Attempt(
            task=task,
            open=partial(self._world.open, task, number),
            act=spoken.act,
            format=spoken,
            conditions=conditions.model_copy(update={"sampling": conditions.sampling.model_copy(update=of_messages)}),
            policy=self.policy,
            seed=number,
            number=number,
            tool_timeout_s=self._tool_timeout_s,
        )
        found = await self._search.attempt(attempt)
        if self._stop is not None:
            raise self._stop
        return [without_tokens(each, conditions) for each in found]

    def close(self) -> None:
        self._client.close()

    def _temperature(self, ours: float) -> float | None:
        """None where none is sent."""
        wanted = self.config.temperature
        return None if wanted == "default" else ours if wanted is None else wanted


def policy_of(config: EndpointSettings) -> Revision:
    """`gpt-x at api.openai.com`, and a hash of where it is and of what it is told."""
    host = urlsplit(config.url).netloc
    decided = {key: config.model_dump(mode="json")[key] for key in ("url", "model", "system")}
    return Revision(name=f"{config.model} at {host}", revision=content_hash(decided))

"""A model behind an OpenAI-compatible endpoint as a policy: it attempts tasks by messages, in our budget of actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar
from urllib.parse import urlsplit

from steptool.core.errors import ParamsError, StepToolError
from steptool.core.revision import MEANS_NOTHING, code_revision
from steptool.core.types import ENDPOINT, Conditions, Revision, Sampling, Task, Trajectory, content_hash
from steptool.endpoints.attempt import Spoken
from steptool.endpoints.base import Spent
from steptool.endpoints.chat import Chat, Reply
from steptool.endpoints.client import Client
from steptool.endpoints.settings import DECIDING, EndpointSettings
from steptool.rollouts.tries import refuse_broken, tried
from steptool.worlds.base import World

ITS_OWN_TEMPERATURE = 1.0
"""Of OpenAI's API, where none is sent."""


class Endpoint:
    """Attempts tasks of `world`, whose revision is that of `conditions`.

    `search` is the project's: an endpoint acts one step after the other, as `chain` does, and is measured beside
    nothing else. Raises ParamsError for another one, and what `Client` raises.
    """

    name: ClassVar[str] = ENDPOINT
    deciding: ClassVar[tuple[str, ...]] = DECIDING
    Config: ClassVar[type[EndpointSettings]] = EndpointSettings

    def __init__(
        self, config: EndpointSettings, world: World, *, world_revision: Revision, search: Revision,
        tool_timeout_s: float,
    ) -> None:  # fmt: skip
        if search.name != "chain":
            raise ParamsError(
                f"an endpoint acts one step after the other, and here policies are measured by search {search.name}",
                where=f"arm with endpoint {config.url}",
                fix="leave the arm out, or set search: {use: chain}",
            )
        self.config, self._world = config, world
        self._around, self._search, self._tool_timeout_s = world_revision, search, tool_timeout_s
        self.policy = policy_of(config)
        self._client = Client(config)
        self._before = self._client.spent

    @property
    def spent(self) -> Spent:
        """Since this was made."""
        return self._client.spent.since(self._before)

    def conditions(self, sampling: Sampling) -> Conditions:
        """`sampling` is our policies': its budget of actions holds here, too; tokens are of another kind."""
        decided = {key: self.config.model_dump(mode="json")[key] for key in DECIDING}
        temperature = self._temperature(sampling)
        return Conditions(
            world=self._around,
            format=Revision(name=ENDPOINT, revision=code_revision([Spoken.__module__], without=MEANS_NOTHING)),
            engine=Revision(name=ENDPOINT, revision=content_hash(decided)),
            dtype=None,
            search=self._search,
            sampling=sampling.model_copy(
                update={
                    "temperature": ITS_OWN_TEMPERATURE if temperature is None else temperature,
                    "max_step_tokens": self.config.max_completion_tokens,
                }
            ),
        )

    def attempts(
        self, tasks: Sequence[Task], sampling: Sampling, attempts: int, *, what: str, max_broken: float
    ) -> list[Trajectory]:
        """`attempts` at every task, in the order of the tasks. Raises CeilingReached and EndpointRefuses, and what
        `refuse_broken` raises; what was answered until then is kept, and not asked again.
        """
        conditions = self.conditions(sampling)
        made = self.attempted(
            tasks, attempts, what=what, max_calls=sampling.max_calls, conditions=conditions, sampling=sampling
        )
        refuse_broken(made, max_broken, engine=f"see whether {self.config.url} answers")
        return made

    def attempted(
        self, tasks: Sequence[Task], attempts: int, *, what: str, max_calls: int, conditions: Conditions | None = None,
        sampling: Sampling | None = None,
    ) -> list[Trajectory]:  # fmt: skip
        """The same, broken ones included."""
        ask = partial(_ask, self._client, self._temperature(sampling))
        jobs = [
            partial(
                _alone,
                Spoken(
                    task=task,
                    open=partial(self._world.open, task, number),
                    ask=ask,
                    policy=self.policy,
                    conditions=conditions,
                    number=number,
                    max_calls=max_calls,
                    max_observation=self.config.max_observation,
                    tool_timeout_s=self._tool_timeout_s,
                    system=self.config.system,
                ),
            )
            for task in tasks
            for number in range(attempts)
        ]
        try:
            return [found[0] for found in tried(jobs, self.config.concurrency, what=what)]
        except BaseExceptionGroup as group:
            if stops := [fault for fault in group.exceptions if isinstance(fault, StepToolError)]:
                raise stops[0] from None
            raise

    def close(self) -> None:
        self._client.close()

    def _temperature(self, sampling: Sampling | None) -> float | None:
        """None where none is sent."""
        wanted = self.config.temperature
        if wanted == "default" or (wanted is None and sampling is None):
            return None
        return wanted if isinstance(wanted, float) else sampling.temperature if sampling else None


def policy_of(config: EndpointSettings) -> Revision:
    """`gpt-x at api.openai.com`, and a hash of where it is and of what it is told."""
    host = urlsplit(config.url).netloc
    decided = {key: config.model_dump(mode="json")[key] for key in ("url", "model", "system")}
    return Revision(name=f"{config.model} at {host}", revision=content_hash(decided))


async def _ask(
    client: Client, temperature: float | None, chat: Chat, tools: Sequence[Mapping[str, Any]], number: int
) -> Reply:
    return await client.ask(chat, tools, attempt=number, temperature=temperature)


async def _alone(attempt: Spoken) -> Sequence[Trajectory]:
    """As a search, whose first trajectory is its answer."""
    return [await attempt.make()]

"""Demonstrations by a better model behind an endpoint: it attempts training tasks, and what the check accepts is kept.

demonstrations: {use: endpoint, url: 'https://api.openai.com/v1', model: gpt-x, key: OPENAI_API_KEY, tasks: 200}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from steptool.config.settings import SEARCH
from steptool.core.errors import DataError
from steptool.core.fields import MOST, Bound, Many, Positive
from steptool.core.types import FINISH, Action, Revision, Sampling, Step, StopReason, Task, ToolCall, Trajectory
from steptool.endpoints.base import Spent
from steptool.endpoints.policy import ITS_OWN_TEMPERATURE, Endpoint
from steptool.endpoints.settings import DECIDING, EndpointSettings
from steptool.formats.episode import singles
from steptool.rollouts.base import Search
from steptool.worlds.base import Ends, World


class Teacher:
    name: ClassVar[str] = "endpoint"
    deciding: ClassVar[tuple[str, ...]] = (*DECIDING, "tasks", "attempts", "keep", "max_calls", "tool_timeout_s")

    class Config(EndpointSettings):
        tasks: Positive = 200
        """Training tasks that it attempts, the first ones."""
        attempts: Many = 1
        """At each task; all that succeed are kept."""
        keep: Literal["checked", "finished"] = "checked"
        """checked: what the world's check accepts, and of tasks without a check, answers after calls without an error;
        finished: everything that ends with an answer."""
        max_calls: Annotated[Many, Field(ge=1)] = 8
        """Actions of an attempt, the answer included."""
        tool_timeout_s: Bound = 10.0
        temperature: Annotated[float, Field(ge=0, le=2)] | Literal["default"] | None = "default"
        """default: it is not sent."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.costs = f"asks {config.model} at {config.url}"

    def read(self, world: World, tasks: Mapping[str, Task], seed: int) -> list[Trajectory]:
        """Raises CeilingReached, EndpointRefuses, and DataError where nothing can be kept. Prints what became of all.

        What was answered until then is in the store.
        """
        wanted = world.tasks("train")[: self.config.tasks]
        search: Search = SEARCH.read({"use": getattr(world, "search", SEARCH.default)}).build()
        try:
            made, spent = self._made(world, search, wanted)
        finally:
            if isinstance(search, Ends):
                search.end()
        verdicts = [(each, self._refused(each, tasks[each.task_id], world)) for each in made]
        kept = [demonstration_of(each, is_parallel=self.config.parallel) for each, why in verdicts if why is None]
        counts = Counter(why for _, why in verdicts if why is not None)
        lost = "".join(f"; {count} {why}" for why, count in counts.most_common())
        print(f"{self.config.model}: {spent}; {len(kept)} of {len(made)} attempts are kept{lost}", flush=True)
        if not kept:
            faults = Counter(each.error for each in made if each.error)
            why = f": {faults.most_common(1)[0][0]}" if faults else lost.replace(";", ":", 1)
            raise DataError(
                f"none of the {len(made)} attempts can be kept{why}",
                where=f"demonstrations: {self.config.model} at {self.config.url}",
                fix="give it a `system` that says how answers are written, raise max_calls, or take a better model",
            )
        return kept

    def _made(self, world: World, search: Search, tasks: Sequence[Task]) -> tuple[list[Trajectory], Spent]:
        nothing = Revision(name="", revision="")  # these attempts are compared with no others
        endpoint = Endpoint(
            self.config,
            world,
            search,
            world_revision=nothing,
            search_revision=nothing,
            tool_timeout_s=self.config.tool_timeout_s,
        )
        sampling = Sampling(
            temperature=ITS_OWN_TEMPERATURE,
            top_p=1.0,
            max_calls=self.config.max_calls,
            max_step_tokens=self.config.max_completion_tokens,
            max_tokens=MOST,
        )
        try:
            return endpoint.attempted(tasks, sampling, self.config.attempts, what="ask the teacher"), endpoint.spent
        finally:
            endpoint.close()

    def _refused(self, made: Trajectory, task: Task, world: World) -> str | None:
        """Why an attempt is no demonstration; None for one that is kept."""
        if made.stop_reason.broken:
            return "ended by a fault"
        if made.stop_reason is not StopReason.finished:
            return "without an answer"
        if any(step.action.unreadable is not None for step in made.steps):
            return "with a step that could not be read"
        offered = {tool.name for tool in task.tools}
        if any(call.name not in offered for step in made.steps for call in step.action.calls):
            return "with a call of a tool that is not offered"
        if self.config.keep == "finished":
            return None
        if made.outcome.solved is not None or world.reference(task).can_be_checked:
            return None if made.outcome.solved == 1.0 else "not solved"
        is_smooth = all(seen.error is None for step in made.steps for seen in step.observations)
        return None if is_smooth and len(made.steps) > 1 else "without a check, and not after calls that all succeed"


def demonstration_of(made: Trajectory, *, is_parallel: bool) -> Trajectory:
    """An attempt as every format can write it: its last message is the answer of `Finish`. Without `is_parallel`, calls
    that were made at once stand one after the other.
    """
    *steps, last = made.steps
    answered = Step(
        action=Action(
            thought=last.action.thought, calls=(ToolCall(name=FINISH, arguments={"answer": last.action.message}),)
        )
    )
    one_by_one = steps if is_parallel else [each for step in steps for each in singles(step)]
    return Trajectory.create(**{**dict(made), "steps": (*one_by_one, answered), "conditions": None})

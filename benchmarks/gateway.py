"""How fast are agents through the gateway, against rollouts of our own?

    python -m benchmarks.gateway --policy models/sft --tasks 128 --at-once 64 --rounds 3

Both make attempts at the same tasks of the bundled world with one engine, in turns, so many at once. An agent is
`benchmarks.mini_agent`: OpenAI's client in a process of its own, as with `world: {use: agent, callable: …}`. A rollout
that cannot read an action goes on where an agent takes it for the answer, so compare tokens: what is printed last is
the ratio of sampled tokens a second, the median of the rounds.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import run as command
from steptool.config.places import PARAMS
from steptool.config.settings import load_params
from steptool.core.plugins import NoSettings
from steptool.core.types import Observation, Outcome, ToolCall, Trajectory
from steptool.rollouts.agent import Agent
from steptool.rollouts.base import Attempt
from steptool.rollouts.chain import Chain
from steptool.rollouts.collect import open_sampler, sampling_of
from steptool.rollouts.loop import run
from steptool.rollouts.tries import Job, run_searches
from steptool.system.environment import be_quiet
from steptool.worlds.agent.agents import Agents
from steptool.worlds.agent.program import Program
from steptool.worlds.base import Session

LOG = Path(".steptool/agent/benchmark.log")
TIMEOUT_S = 600.0


@dataclass
class Speed:
    seconds: float
    attempts: int
    actions: int
    tokens: int
    """That were sampled."""

    def __str__(self) -> str:
        return (
            f"{self.seconds:6.1f} s  {self.attempts / self.seconds:6.2f} attempts/s  "
            f"{self.actions / self.seconds:6.1f} actions/s  {self.tokens / self.seconds:7.1f} tokens/s"
        )


class AgentOf:
    """A session that runs the agent, and leaves the verdict to the world's own session."""

    def __init__(self, attempt: Attempt, agents: Agents) -> None:
        self._query, self._agents, self._judge = attempt.task.query, agents, attempt.open()

    async def run(self, base_url: str, key: str) -> str | None:
        return await self._agents.run(self._query, base_url, key, log=LOG)

    def saw(self, calls: Sequence[tuple[ToolCall, Observation]]) -> None:
        """The bundled world judges by the answer."""

    async def call(self, call: ToolCall) -> Observation:
        return await self._judge.call(call)

    async def say(self, message: str) -> str | None:
        return await self._judge.say(message)

    async def close(self, answer: str | None) -> Outcome:
        return await self._judge.close(answer)


def measured(make: Callable[[Attempt], Job], attempts: Sequence[Attempt], at_once: int) -> Speed:
    """`make`: a search of an attempt that has not begun."""
    started = time.monotonic()
    found = run(run_searches([make(attempt) for attempt in attempts], at_once))
    seconds = time.monotonic() - started
    made: list[Trajectory] = [trajectory for search in found for trajectory in search]
    broken = [trajectory.error for trajectory in made if trajectory.stop_reason.broken]
    if broken:
        print(f"  {len(broken)} attempts were broken, such as by {broken[0]}")
    steps = [step for trajectory in made for step in trajectory.steps]
    return Speed(seconds, len(found), len(steps), sum(len(step.action_ids) for step in steps))


def main(
    policy: Annotated[Path, typer.Option(help="folder of the policy")] = Path("models/sft"),
    tasks: Annotated[int, typer.Option(help="training tasks of the bundled world")] = 128,
    at_once: Annotated[int, typer.Option(help="attempts in flight")] = 64,
    rounds: Annotated[int, typer.Option(help="how often both are measured")] = 3,
) -> None:
    be_quiet()
    params = load_params(PARAMS)
    agents = Agents(Program(callable="benchmarks.mini_agent:run"), timeout_s=TIMEOUT_S,
                    preload=["openai.OpenAI", "benchmarks.mini_agent"])  # fmt: skip
    chain, agent = Chain(NoSettings()), Agent(Agent.Config())
    ratios = []
    try:
        with open_sampler(params, policy, seed=params.seed) as sampler:
            conditions = sampler.conditions(sampling_of(params))
            attempts = [sampler.attempt(task, 0, conditions) for task in sampler.world.tasks("train")[:tasks]]

            def own(attempt: Attempt) -> Job:
                return lambda: chain.attempt(attempt)

            def through(attempt: Attempt) -> Job:
                def open() -> Session:
                    return AgentOf(attempt, agents)

                return lambda: agent.attempt(dataclasses.replace(attempt, open=open))

            measured(own, attempts[:at_once], at_once)  # both begin warm
            measured(through, attempts[:at_once], at_once)
            for number in range(rounds):
                sides = [("own", own), ("agents", through)]
                speeds = {name: measured(side, attempts, at_once) for name, side in sides[:: 1 - 2 * (number % 2)]}
                for name, _ in sides:
                    print(f"{name:7}{speeds[name]}", flush=True)
                own_speed, agent_speed = speeds["own"], speeds["agents"]
                ratios.append((agent_speed.tokens / agent_speed.seconds) / (own_speed.tokens / own_speed.seconds))
    finally:
        agent.end()
        agents.close()
    print(f"agents sample {statistics.median(ratios):.2f} of the tokens a second of own rollouts "
          f"({', '.join(f'{ratio:.2f}' for ratio in ratios)}; {at_once} at once)")  # fmt: skip


if __name__ == "__main__":
    command(main)

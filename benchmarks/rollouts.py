"""How fast are rollouts over tools, against vLLM alone on the same turns?

    python -m benchmarks.rollouts --policy models/sft --tasks 128 --at-once 64 --sleep 0.05,0.5 --rounds 3

Three sides take turns on one engine, each from an empty cache of prefixes:

    rollouts          attempts at tasks of the bundled world, as `sample` makes them
    vLLM alone        the requests of these attempts, in a plain loop around the engine: a turn is queued as soon as the
                      one before it has ended, an attempt as soon as one of those in flight has
    tools that sleep  the same attempts, while each call sleeps (uniform between the seconds of --sleep)

What counts is the ratio of sampled tokens a second: a rollout that cannot keep the engine busy falls below 1.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import run as command
from benchmarks.gateway import measured
from steptool.config.places import PARAMS
from steptool.config.settings import load_params
from steptool.core.errors import InputError
from steptool.core.plugins import NoSettings
from steptool.core.types import Observation, Outcome, ToolCall
from steptool.engines.base import Generation, Request
from steptool.rollouts.base import Attempt
from steptool.rollouts.chain import Chain
from steptool.rollouts.collect import open_sampler, sampling_of
from steptool.rollouts.tries import Job
from steptool.system.environment import be_quiet
from steptool.worlds.base import Session


class Sleeping:
    """A session whose tools take their time."""

    def __init__(self, session: Session, fewest_s: float, most_s: float, seed: str) -> None:
        self._session, self._bounds, self._random = session, (fewest_s, most_s), random.Random(seed)

    async def call(self, call: ToolCall) -> Observation:
        await asyncio.sleep(self._random.uniform(*self._bounds))
        return await self._session.call(call)

    async def say(self, message: str) -> str | None:
        return await self._session.say(message)

    async def close(self, answer: str | None) -> Outcome:
        return await self._session.close(answer)


@dataclass
class Turns:
    """What one attempt asks of its engine, in order, as the engine gets it."""

    attempt: Attempt
    seed: int
    """The engine's own."""
    asked: list[Request] = field(default_factory=list)

    async def act(self, stream: Sequence[int], most: int, seed: int) -> Generation:
        sampling, stop = self.attempt.conditions.sampling, self.attempt.format.stop_ids
        request = Request(tuple(stream), most, sampling.temperature, sampling.top_p, seed, stop)
        self.asked.append(request.seeded(self.seed))
        return await self.attempt.act(stream, most, seed)


def alone(vllm: Any, turns: Sequence[Sequence[Request]], at_once: int) -> int:
    """Run on the thread of an engine: its plain loop. Returns how many tokens were sampled."""
    left = {number: iter(requests) for number, requests in enumerate(turns)}
    waiting, running, tokens = iter(left), set[str](), 0

    def begin(number: int) -> bool:
        request = next(left[number], None)
        if request is not None:
            vllm.add(str(number), request)
            running.add(str(number))
        return request is not None

    def fill() -> None:
        while len(running) < at_once:
            number = next(waiting, None)
            if number is None:
                return
            begin(number)

    fill()
    while running:
        for id, generation in vllm.step():
            running.discard(id)
            tokens += len(generation.ids)
            begin(int(id))
        fill()
    return tokens


def main(
    policy: Annotated[Path, typer.Option(help="folder of the policy")] = Path("models/sft"),
    tasks: Annotated[int, typer.Option(help="training tasks of the bundled world", min=1)] = 128,
    at_once: Annotated[int, typer.Option(help="attempts in flight", min=1)] = 64,
    sleep: Annotated[str, typer.Option(help="fewest and most seconds that a call of a tool sleeps")] = "0.05,0.5",
    rounds: Annotated[int, typer.Option(help="how often each side is measured", min=1)] = 3,
) -> None:
    fewest_s, most_s = _bounds(sleep)
    be_quiet()
    params = load_params(PARAMS)
    if params.engine.name != "vllm":
        raise InputError(f"is {params.engine.name}", where="params.yaml: engine.use", fix="set it to vllm")
    chain = Chain(NoSettings())
    with open_sampler(params, policy, seed=params.seed) as sampler:
        pump = sampler._engine._pump  # type: ignore[union-attr]  # its own thread is where vLLM may be stepped
        conditions = sampler.conditions(sampling_of(params))
        attempts = [sampler.attempt(task, 0, conditions) for task in sampler.world.tasks("train")[:tasks]]
        turns = {attempt.task.id: Turns(attempt, sampler.seed) for attempt in attempts}

        def plain(attempt: Attempt) -> Job:
            return lambda: chain.attempt(attempt)

        def noted(attempt: Attempt) -> Job:
            return plain(dataclasses.replace(attempt, act=turns[attempt.task.id].act))

        def sleeping(attempt: Attempt) -> Job:
            def open() -> Session:
                return Sleeping(attempt.open(), fewest_s, most_s, attempt.task.id)

            return plain(dataclasses.replace(attempt, open=open))

        def rollouts(make: Callable[[Attempt], Job]) -> float:
            pump.between(lambda vllm: vllm._llm.reset_prefix_cache())
            speed = measured(make, attempts, at_once)
            return speed.tokens / speed.seconds

        def vllm_alone() -> float:
            pump.between(lambda vllm: vllm._llm.reset_prefix_cache())
            asked, began = [each.asked for each in turns.values()], time.monotonic()
            return pump.between(lambda vllm: alone(vllm, asked, at_once)) / (time.monotonic() - began)

        rollouts(noted)  # so that all sides begin warm
        sides = {"rollouts": lambda: rollouts(plain), "sleeping tools": lambda: rollouts(sleeping)}
        ratios: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(rounds):
            base = vllm_alone()
            print(f"round {number + 1}: vLLM alone {base:7.1f} tokens/s", flush=True)
            for name, side in sides.items():
                found = side()
                ratios[name].append(found / base)
                print(f"         {name:15} {found:7.1f} tokens/s  {found / base:.3f}", flush=True)
    actions = sum(len(each.asked) for each in turns.values())
    print(f"{len(attempts)} attempts, {actions} actions, {at_once} at once; tokens a second over those of vLLM alone:")
    for name, those in ratios.items():
        print(f"{name:15} {statistics.median(those):.3f}  [{min(those):.3f}, {max(those):.3f}] of {rounds} rounds")


def _bounds(written: str) -> tuple[float, float]:
    try:
        fewest_s, most_s = (float(each) for each in written.split(","))
    except ValueError as error:
        raise InputError(f"is {written!r}", where="--sleep", fix="write two numbers, such as 0.05,0.5") from error
    return fewest_s, most_s


if __name__ == "__main__":
    command(main)

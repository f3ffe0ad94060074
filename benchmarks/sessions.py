"""What an evaluation gains by turns that continue one request of vLLM's, in place of a request a turn.

    python -m benchmarks.sessions models/r2 --rounds 3

Runs the dev tasks greedily under one policy, both ways in turn, each with an empty cache, and prints seconds,
their ratio and whether the two say the same. Needs data/tasks and the policy (`dvc repro train@r2`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Coroutine, Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from benchmarks import run
from steptool.params import load_params
from steptool.quiet import be_quiet
from steptool.rollouts.engine import Engine
from steptool.rollouts.rollout import Generation

Result = TypeVar("Result")


@dataclass
class RequestATurn:
    """The engine, not told which prompts continue each other."""

    engine: Engine

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return self.engine.run(coroutine)

    async def generate(self, *arguments: Any, conversation: Hashable, **options: Any) -> Generation:
        return await self.engine.generate(*arguments, **options)

    def end(self, conversation: Hashable) -> None:
        """Nothing is kept for it."""


def main(
    policy: Annotated[Path, typer.Argument(help="A policy folder.")] = Path("models/sft"),
    rounds: Annotated[int, typer.Option(min=1, help="Both ways, so often.")] = 3,
    tasks: Annotated[int, typer.Option(min=1, help="Dev tasks at most.")] = 240,
) -> None:
    """Time an evaluation both ways."""
    from steptool.stages.common import read_tasks, sampling_of
    from steptool.stages.generate import generate

    params = load_params()
    sampling = sampling_of(params).model_copy(update={"temperature": 0.0, "top_p": 1.0})
    chosen = read_tasks("dev")[:tasks]
    seconds: dict[str, list[float]] = {"a request a turn": [], "sessions": []}
    same = []
    with generate(params, policy, seed=params.seed) as sampler:
        ways = {"a request a turn": replace(sampler, engine=RequestATurn(sampler.engine)), "sessions": sampler}  # type: ignore[arg-type]
        for _ in range(rounds):
            said = []
            for name, way in ways.items():
                sampler.load(policy)  # empties the cache
                started = time.monotonic()
                said.append(way.attempts(chosen, sampling, 1, what=name))
                seconds[name].append(time.monotonic() - started)
            same.append(sum(one.token_ids == other.token_ids for one, other in zip(*said, strict=True)))
    for name, found in seconds.items():
        print(f"{name}: {', '.join(f'{one:.1f}' for one in found)} s")
    ratios = [new / old for old, new in zip(*seconds.values(), strict=True)]
    print(f"ratio {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")
    print(f"the same to the token: {', '.join(map(str, same))} of {len(chosen)} attempts")


if __name__ == "__main__":
    be_quiet()
    run(main)

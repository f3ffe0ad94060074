"""What does a search find that a chain does not, at the same budget of actions, and what does it cost?

    python -m benchmarks.search --policy models/sft --limit 60
    python -m benchmarks.search --policy models/sft --search chain --search dfsdt:back=1 --temperature 0.8
    python -m benchmarks.search --policy models/sft --budgets 4,8,16
    python -m benchmarks.search --policy models/sft --set world.use=workbench --set world.path=../workbench
    python -m benchmarks.search --policy models/sft --no-fork

All make attempts at the same tasks with one engine, whose cache of prefixes is emptied before each. The budget is
`max_calls` of a chain, and of a tree all its actions. Every other search is compared with the first, task by task, as
`compare` does it: tasks of one cluster are one draw.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from ruamel.yaml import YAML

from benchmarks import run as command
from benchmarks.corners import settings_of
from steptool.config.places import PARAMS
from steptool.config.settings import SEARCH, Params, parse_params
from steptool.core.errors import InputError
from steptool.core.types import Observation, Outcome, Sampling, StopReason, Task, ToolCall, Trajectory
from steptool.engines.base import Generation
from steptool.evaluation.compare import paired_difference
from steptool.evaluation.metrics import Cluster, cluster_of
from steptool.report.wording import p_number, percent, points
from steptool.rollouts.base import Attempt
from steptool.rollouts.collect import Sampler, open_sampler, sampling_of
from steptool.rollouts.dfsdt import is_in
from steptool.rollouts.loop import run
from steptool.rollouts.tries import run_searches
from steptool.system.environment import be_quiet
from steptool.worlds.base import SPLITS, Forks, Session

RESAMPLES = 10_000
STOPS = ("finished", "gave_up", "call_budget", "token_budget")


@dataclass
class Spent:
    """On all attempts of a search."""

    actions: int = 0
    """Sampled."""
    calls: int = 0
    """Of tools, those included that were made again."""
    sampled: int = 0
    """Tokens."""
    seen: int = 0
    """Tokens of the prompts that the engine was given."""
    computed: int = 0
    """Those of them that its cache did not hold; 0 where the engine is not vLLM in this process."""


@dataclass
class Measured:
    name: str
    budget: int
    found: Sequence[Sequence[Trajectory]]
    """A search a task, its answer first."""
    clusters: Sequence[Cluster]
    """Of each task."""
    spent: Spent
    seconds: float
    solved: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.solved = [each[0].outcome.solved or 0.0 for each in self.found]

    def row(self, first: Measured) -> str:
        tasks, spent = len(self.found), self.spent
        stops = Counter(each[0].stop_reason.value for each in self.found)
        ends = " / ".join(str(stops[stop]) for stop in STOPS)
        computed = f"{spent.computed / tasks:,.0f} ({percent(spent.computed / spent.seen)})" if spent.computed else "-"
        cells = (
            *(f"{self.budget}", self.name, percent(float(np.mean(self.solved)), 1), difference(self, first), ends),
            f"{sum(map(len, self.found)) / tasks:.2f}",
            f"{sum(map(repeats, self.found)) / tasks:.2f}",
            *(f"{count / tasks:.2f}" for count in (spent.actions, spent.calls)),
            *(f"{spent.sampled / tasks:,.0f}", f"{spent.seen / tasks:,.0f}", computed, f"{self.seconds:.0f}"),
        )
        return f"| {' | '.join(cells)} |"


HEAD = (
    *(
        "budget",
        "search",
        "solved",
        "against the first",
        " / ".join(STOPS),
        "branches",
        "repeats",
        "actions",
        "tool calls",
    ),
    *("tokens sampled", "tokens seen", "tokens computed", "s"),
)


def difference(candidate: Measured, baseline: Measured) -> str:
    """Solved tasks in percentage points, paired by task."""
    if candidate is baseline:
        return ""
    found = paired_difference(
        np.array(candidate.solved) - np.array(baseline.solved),
        resamples=RESAMPLES,
        confidence=0.95,
        rng=np.random.default_rng(0),
        clusters=candidate.clusters,
    )
    return (
        f"{points(found.difference, 1, sign=True)} [{points(found.low, 1)}, {points(found.high, 1)}], "
        f"{found.won} won, {found.lost} lost, p {p_number(found.p_value)}"
    )


def repeats(tree: Sequence[Trajectory]) -> int:
    """How many branches end with what another had done at that place, whether or not they were told of it."""
    found = 0
    for branch in (each for each in tree if each.stop_reason is StopReason.call_budget):
        *before, last = branch.steps
        others = [other.steps for other in tree if other is not branch and len(other.steps) > len(before)]
        same = [steps for steps in others if [s.action for s in steps[: len(before)]] == [s.action for s in before]]
        found += is_in(last.action, [steps[len(before)].action for steps in same])
    return found


class Counted:
    """A session whose calls are counted."""

    def __init__(self, session: Session, spent: Spent, *, forks: bool) -> None:
        self._session, self._spent, self._forks = session, spent, forks

    async def call(self, call: ToolCall) -> Observation:
        self._spent.calls += 1
        return await self._session.call(call)

    async def say(self, message: str) -> str | None:
        return await self._session.say(message)

    async def close(self, answer: str | None) -> Outcome:
        return await self._session.close(answer)

    def fork(self) -> Counted | None:
        twin = self._session.fork() if self._forks and isinstance(self._session, Forks) else None
        return None if twin is None else Counted(twin, self._spent, forks=True)


def counted(attempt: Attempt, spent: Spent, *, forks: bool) -> Attempt:
    """The same attempt, whose actions and calls are counted."""

    async def act(stream: Sequence[int], most: int, seed: int) -> Generation:
        made = await attempt.act(stream, most, seed)
        spent.actions += 1
        spent.sampled += len(made.ids)
        spent.seen += len(stream)
        return made

    return replace(attempt, act=act, open=lambda: Counted(attempt.open(), spent, forks=forks))


@contextmanager
def computed_tokens(spent: Spent) -> Iterator[None]:
    """Count the tokens of prompts that vLLM in this process computes."""
    from vllm.v1.engine.llm_engine import LLMEngine

    step: Callable[[Any], list[Any]] = LLMEngine.step

    def counting(engine: Any) -> list[Any]:
        outputs = step(engine)
        for output in outputs:
            if output.finished:
                spent.computed += len(output.prompt_token_ids) - (output.num_cached_tokens or 0)
        return outputs

    LLMEngine.step = counting
    try:
        yield
    finally:
        LLMEngine.step = step


def measure(
    sampler: Sampler, params: Params, name: str, tasks: Sequence[Task], sampling: Sampling, *, forks: bool
) -> Measured:
    """One search, an attempt a task."""
    sampler.params = params.model_copy(update={"search": search_of(name)})
    sampler.search = sampler.params.acting_search.build()
    conditions, spent = sampler.conditions(sampling), Spent()
    attempts = [counted(sampler.attempt(task, 0, conditions), spent, forks=forks) for task in tasks]
    jobs = [partial(sampler.search.attempt, attempt) for attempt in attempts]
    start = time.perf_counter()
    with computed_tokens(spent):
        found = run(run_searches(jobs, params.machine.concurrency))
    seconds = time.perf_counter() - start
    clusters = [cluster_of(task.id, sampler.world.reference(task).cluster) for task in tasks]
    return Measured(name, sampling.max_calls, found, clusters, spent, seconds)


def search_of(name: str) -> Any:
    """`dfsdt:back=1,children=3` as a section of params.yaml. Raises InputError where there is no such search."""
    use, _, rest = name.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",") if pair]
    try:
        return SEARCH.read({"use": use, **{key: YAML(typ="safe").load(value) for key, _, value in pairs}})
    except ValueError as error:
        raise InputError(f"no such search: {error}", where=f"--search {name}", fix="write dfsdt:back=1") from error


def main(
    policy: Annotated[Path, typer.Option(help="Folder of the policy.")],
    search: Annotated[list[str] | None, typer.Option(help="Such as dfsdt:back=1; the first is compared with.")] = None,
    budgets: Annotated[str, typer.Option(help="Actions of an attempt.")] = "8",
    split: Annotated[str, typer.Option(help="Whose tasks.")] = "dev",
    limit: Annotated[int, typer.Option(min=1, help="Tasks, the first of the split.")] = 60,
    temperature: Annotated[float, typer.Option(min=0)] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the world and of what is sampled.")] = 17,
    fork: Annotated[bool, typer.Option(help="Whether sessions may be forked; else calls are made again.")] = True,
    change: Annotated[list[str] | None, typer.Option("--set", help="Over params.yaml: section.key=value.")] = None,
) -> None:
    """Compare searches with one policy, on a table in Markdown."""
    be_quiet()
    params = parse_params(PARAMS, settings_of("", change or [], seed))
    if split not in SPLITS:
        raise InputError(f"there is no split {split}", fix=f"use one of {', '.join(SPLITS)}")
    names = search or ["chain", "dfsdt"]
    for name in names:
        search_of(name)  # before the engine starts
    with open_sampler(params, policy, seed=seed) as sampler:
        tasks = list(sampler.world.tasks(split))[:limit]
        print(f"{len(tasks)} {split} tasks of {params.world.name}, {policy}, temperature {temperature:g}\n")
        print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}")
        for budget in [int(budget) for budget in budgets.split(",")]:
            first: Measured | None = None
            for name in names:
                sampler.load(policy)  # which empties the cache
                sampling = sampling_of(params).model_copy(update={"max_calls": budget, "temperature": temperature})
                found = measure(sampler, params, name, tasks, sampling, forks=fork)
                first = first or found
                print(found.row(first), flush=True)
    print("\nbranches to tokens computed are means over tasks; tokens seen and computed are those of prompts")


if __name__ == "__main__":
    command(main)

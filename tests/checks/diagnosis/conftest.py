"""A shop with one tool, and policies that ask it for a price: real rollouts, judged by the real rules."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from steptool import testing
from steptool.annotators.rules import Rules
from steptool.core.plugins import NoSettings
from steptool.core.types import FINISH, Action, Observation, Outcome, ScoredTrajectory, Task, ToolCall, Trajectory
from steptool.engines.base import Generation, Request
from steptool.formats.json_call import JsonCall
from steptool.policies import tiny_model
from steptool.rollouts.base import Attempt
from steptool.rollouts.chain import Chain
from steptool.rollouts.tries import run_searches

TOKENIZER = tiny_model.tokenizer()
CHAT = JsonCall(JsonCall.Config(), TOKENIZER)
PRICE = testing.tool("price", "Price of a thing.", needs={"name": "string"})
TASKS = [testing.task(f"t{number}", f"What does thing-{number} cost?", PRICE) for number in range(8)]
ATTEMPTS = 6


@dataclass
class Policy:
    """Asks for the price, then answers with it, or with another one. It is its own engine."""

    name: str = "models/sft"
    revision: str = "1"
    right: float = 0.5
    """How often it answers with what the tool said."""
    calls: tuple[int, int] = (1, 1)
    """Fewest and most calls before the answer."""
    logprob: float = -0.5
    """Of each of its tokens."""

    async def generate(self, request: Request) -> Generation:
        await asyncio.sleep(0)
        chance = random.Random(request.seed)
        text = TOKENIZER.decode(list(request.prompt_ids))
        number = re.findall(r"thing-(\d+) cost", text)[0]
        made = text.count("<|im_start|>tool")
        if made < self.calls[0] or (made < self.calls[1] and chance.random() < 0.5):
            call = testing.call("price", name=f"thing-{number}")
        else:
            call = testing.call(FINISH, answer=number if chance.random() < self.right else f"{number}9")
        ids = CHAT.render(Action(calls=(call,)), TASKS[int(number)])[: request.max_tokens]
        return Generation(ids, (self.logprob,) * len(ids), stopped=ids[-1] in request.stop_ids)

    def load(self, policy: Path) -> None:
        """Another policy is another object."""

    def close(self) -> None:
        """There is nothing to free."""


@dataclass
class Shop:
    """One session; the tool hangs for `hangs_s`."""

    task: Task
    hangs_s: float = 0.0

    async def call(self, call: ToolCall) -> Observation:
        await asyncio.sleep(self.hangs_s)
        return Observation(text=json.dumps({"price": call.arguments["name"].removeprefix("thing-")}))

    async def say(self, message: str) -> str | None:
        return None

    async def close(self, answer: str | None) -> Outcome:
        return Outcome(solved=float(answer == self.task.id.removeprefix("t")))


def sampled(policy: Policy, *, hangs_s: float = 0.0, tool_timeout_s: float = 5.0, **sampling: Any) -> list[Trajectory]:
    """ATTEMPTS attempts of a policy at each of TASKS, through the real search."""
    conditions = testing.conditions(**sampling)

    async def act(stream: Sequence[int], most: int, seed: int) -> Generation:
        return await policy.generate(Request(stream, most, 1.0, 1.0, seed, CHAT.stop_ids))

    jobs = [
        partial(
            Chain(NoSettings()).attempt,
            Attempt(
                task=task,
                open=partial(Shop, task, hangs_s),
                act=act,
                format=CHAT,
                conditions=conditions,
                policy=testing.revision(policy.name, policy.revision),
                seed=number,
                number=number,
                tool_timeout_s=tool_timeout_s,
            ),
        )
        for task in TASKS
        for number in range(ATTEMPTS)
    ]
    return [found[0] for found in asyncio.run(run_searches(jobs, concurrency=64))]


def judged(trajectories: Sequence[Trajectory]) -> list[ScoredTrajectory]:
    rules, tasks = Rules(Rules.Config()), {task.id: task for task in TASKS}

    async def score(each: Trajectory) -> ScoredTrajectory:
        found = await rules.annotate(each, tasks[each.task_id], testing.reference(each.task_id))
        return ScoredTrajectory(trajectory=each, judgements=tuple(found), annotator=testing.revision("rules"))

    async def all_of_them() -> list[ScoredTrajectory]:
        return await asyncio.gather(*map(score, trajectories))

    return asyncio.run(all_of_them())


@pytest.fixture(scope="session")
def before() -> list[ScoredTrajectory]:
    """A healthy round, of the policy models/sft."""
    return judged(sampled(Policy()))

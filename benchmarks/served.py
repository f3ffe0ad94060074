"""What a policy solves for a plain OpenAI client of `steptool serve-model`, against what `evaluate` says.

    python -m benchmarks.served [--policy models/ppo2] [--tasks 60]

Run it in a project's folder. The same test tasks are attempted twice at temperature 0: as `evaluate` does it, with the
adapter merged into its base, and by a client of the server, which adds the adapter. Of each task whose actions differ
the first is shown that does, and by how much the server finds its own action likelier than the other one.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import openai
import typer

from benchmarks import run as run_command
from steptool.config.settings import Params, load_params
from steptool.core.errors import StepToolError
from steptool.core.messages import GAVE_UP
from steptool.core.types import FINISH, Action, Task, ToolCall, Trajectory
from steptool.formats.base import Format
from steptool.formats.names import OPENAI, TEXT, Names, Spelling
from steptool.formats.native import Native
from steptool.orchestration.services.servers import HOST, any_free_port
from steptool.policies.precision import compute_dtype
from steptool.rollouts.collect import measured_sampling, open_sampler
from steptool.serving.driver import attempt
from steptool.serving.policy import Named, find
from steptool.serving.server import Address, prompt_logprobs

Server: TypeAlias = Callable[[Named], AbstractContextManager[Address]]
READY_S = 600.0
AT_ONCE = 8
UNREADABLE = "text that cannot be read: a rollout says so and goes on, a client takes it for the answer"
CUT = "an end that only one of the two has: budgets of tokens and calls"


@dataclass(frozen=True)
class Difference:
    """Where two attempts at a task part."""

    task: str
    number: int
    """Of the first action that differs, from 1."""
    evaluated: str
    served: str
    why: str
    gap: float | None
    """Log-probability of the served action's first own token less that of the other's, as the server computes both."""


@dataclass(frozen=True)
class Result:
    evaluated: list[float]
    served: list[float]
    """What each attempt solved, in the order of the tasks."""
    differences: list[Difference]

    @property
    def verdicts(self) -> int:
        """Tasks of which the two have another verdict."""
        return sum(one != other for one, other in zip(self.evaluated, self.served, strict=True))


def measure(params: Params, policy: Named, tasks: Sequence[Task], server: Server | None = None) -> Result:
    """`server` holds the policy while its context is open; None: `serving`.

    Raises StepToolError where the server does not start."""
    world, sampling = params.world.build(params.seed), measured_sampling(params)
    sampling = sampling.model_copy(update={"temperature": 0.0})
    with open_sampler(params, policy.folder, seed=params.seed) as sampler:
        format = sampler.format
        own = sampler.attempts(tasks, sampling, 1, what="evaluate", max_broken=0.0)
    spelling = OPENAI if isinstance(format, Native) else TEXT
    with (server or serving)(policy) as address:
        client = openai.AsyncOpenAI(base_url=f"{address.url}/v1", api_key="none", timeout=600)

        async def served() -> list[Any]:
            gate = asyncio.Semaphore(AT_ONCE)

            async def one(task: Task) -> Any:
                async with gate:
                    calls = params.sample.max_calls
                    return await attempt(client, policy.name, world, task, max_calls=calls, spelling=spelling)

            return await asyncio.gather(*map(one, tasks))

        found = asyncio.run(served())
        pairs = zip(tasks, own, found, strict=True)
        parted = [
            part(task, mine, messages, format, spelling, lambda ids: prompt_logprobs(address, policy.name, ids)[-1])
            for task, mine, (_, messages) in pairs
        ]
    return Result(
        [mine.outcome.solved or 0.0 for mine in own],
        [outcome.solved or 0.0 for outcome, _ in found],
        [each for each in parted if each is not None],
    )


@contextmanager
def serving(policy: Named) -> Iterator[Address]:
    """`steptool serve-model` in a process of its own, until the block ends, by SIGTERM too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    address = Address(HOST, any_free_port())
    which = ["--policy", str(policy.folder), "--port", str(address.port)]
    command = [sys.executable, "-m", "steptool.cli", "serve-model", *which]
    with tempfile.NamedTemporaryFile("w+") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        try:
            deadline = time.monotonic() + READY_S
            while f"{address.url}/v1 serves" not in Path(out.name).read_text():
                if child.poll() is not None or time.monotonic() > deadline:
                    raise StepToolError(f"serve-model: {Path(out.name).read_text()[-2000:]}", where=str(policy.folder))
                time.sleep(0.5)
            yield address
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
                child.wait(60)


def part(
    task: Task,
    own: Trajectory,
    messages: Sequence[Any],
    format: Format,
    spelling: Spelling,
    logprob: Any,
) -> Difference | None:
    """The first action of a client's messages that is not that of `own`; None without one.

    `logprob(ids)` is the log-probability of the last of these tokens behind the others.
    """
    names = Names.of(task.tools, spelling)
    stream: list[int] = []
    theirs = [message for message in messages if message["role"] == "assistant"]
    for number, step in enumerate(own.steps):
        stream += step.context_ids
        mine = step.action
        other = _action(theirs[number], names) if number < len(theirs) else None
        if other is None or _words(mine) != _words(other):
            why, gap = CUT if other is None else UNREADABLE, None
            if other is not None and mine.unreadable is None:
                why, gap = _gap(stream, step.action_ids, format.render(_ending(other, format), task), logprob)
            said = _words(other) if other is not None else "nothing"
            return Difference(task.id, number + 1, _words(mine), said, why, gap)
        stream += step.action_ids
    if len(theirs) > len(own.steps):
        number = len(own.steps)
        return Difference(task.id, number + 1, "nothing", _words(_action(theirs[number], names)), CUT, None)
    return None


def _gap(before: Sequence[int], own: Sequence[int], other: Sequence[int], logprob: Any) -> tuple[str, float | None]:
    at = next((n for n, (one, two) in enumerate(zip(own, other, strict=False)) if one != two), None)
    if at is None:
        return CUT, None
    stream = [*before, *own[:at]]
    gap = logprob([*stream, other[at]]) - logprob([*stream, own[at]])
    return f"token {at + 1} of the action", gap


def _action(message: Any, names: Names) -> Action:
    """What a client got, with the world's names."""
    calls = [
        ToolCall(
            name=names.meant.get(call["function"]["name"], call["function"]["name"]),
            arguments=json.loads(call["function"]["arguments"]),
        )
        for call in message.get("tool_calls") or []
    ]
    text = message.get("content") or ""
    return Action(thought=text, calls=tuple(calls)) if calls else Action(message=text)


def _ending(action: Action, format: Format) -> Action:
    """A client's answer as the format writes it."""
    if action.message is None or isinstance(format, Native):
        return action
    given = {"give_up": True} if action.message == GAVE_UP else {"answer": action.message}
    return Action(calls=(ToolCall(name=FINISH, arguments=given),))


def _words(action: Action) -> str:
    """The calls, or what the user is told."""
    if action.unreadable is not None:
        return f"unreadable: {action.thought}"
    if action.is_finish:
        return f"answer: {GAVE_UP if action.answer is None else action.answer}"
    if action.message is not None:
        return f"answer: {action.message}"
    return "; ".join(f"{call.name} {json.dumps(call.arguments, ensure_ascii=False)}" for call in action.calls)


def report(result: Result, dtype: str) -> str:
    count = len(result.evaluated)
    lines = [
        f"{dtype}, {count} test tasks: evaluate solves {sum(result.evaluated):g}, served {sum(result.served):g}; "
        f"{result.verdicts} verdicts differ; an action differs in {len(result.differences)} tasks"
    ]
    for each in result.differences:
        gap = "" if each.gap is None else f", by {each.gap:.3f} nats"
        lines += [
            f"  {each.task}, action {each.number}: {each.why}{gap}",
            f"    evaluate  {each.evaluated[:120]!r}",
            f"    served    {each.served[:120]!r}",
        ]
    return "\n".join(lines)


def main(
    policy: Annotated[str, typer.Option(help="An arm, a policy's folder, or @alias.")] = "models/ppo2",
    tasks: Annotated[int, typer.Option(help="Test tasks, spread over all of them.", min=1)] = 60,
) -> None:
    """Hold what a served policy solves against what `evaluate` says."""
    params = load_params()
    every = list(params.world.build(params.seed).tasks("test"))
    tasks = min(tasks, len(every))
    chosen = [every[number * len(every) // tasks] for number in range(tasks)]
    print(report(measure(params, find(params, policy), chosen), compute_dtype(params.model)))


if __name__ == "__main__":
    run_command(main)

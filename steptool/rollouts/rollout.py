"""One attempt at one task, and many of them at once.

    prompt → action → observation → action → … → Finish, or a budget, or a fault

A bad rollout is a record with a stop reason, never an exception: a call that cannot be read and a tool
that fails or hangs are observations the policy learns from; a broken engine or world ends the trajectory.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from steptool.rollouts.chat_format import ChatFormat, clean_text
from steptool.types import (
    Observation,
    Revision,
    Sampling,
    Step,
    StopReason,
    Task,
    ToolCall,
    Trajectory,
    content_hash,
)
from steptool.worlds.base import Session


@dataclass(frozen=True)
class Generation:
    """What the engine sampled: `ids` end in a stop token where `stopped`, else they ran into max_tokens.

    `logprobs` are the natural logs of the probabilities each id was sampled with.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool


class Generator(Protocol):
    async def generate(
        self,
        prompt_ids: Sequence[int],
        *,
        max_tokens: int,
        temperature: float,
        top_p: float,
        seed: int,
        stop_ids: Sequence[int],
    ) -> Generation:
        """Sample until a stop token or `max_tokens` tokens. Any exception ends this one rollout."""
        ...


Job = Callable[[], Awaitable[Trajectory]]
"""A rollout that has not begun, for instance `partial(rollout, task, …)`."""


async def rollout(
    task: Task,
    session: Session,
    generator: Generator,
    chat: ChatFormat,
    sampling: Sampling,
    *,
    policy: Revision,
    world: Revision,
    seed: int,
    attempt: int,
    tool_timeout_s: float,
) -> Trajectory:
    """Act until `Finish`, a budget or a fault. Raises nothing but cancellation.

    The last allowed action is carried out like any other, so that a judge can see what came of it.
    """
    steps: list[Step] = []
    stream: list[int] = []
    context = chat.prompt_ids(task)
    answer: str | None = None
    error: str | None = None
    while True:
        room = sampling.max_tokens - len(stream) - len(context)
        if room < 1:
            reason = StopReason.token_budget
            break
        stream += context
        try:
            generation = await generator.generate(
                tuple(stream),
                max_tokens=min(room, sampling.max_step_tokens),
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=_step_seed(task, seed, attempt, len(steps)),
                stop_ids=chat.stop_ids,
            )
            _check(generation)
        except Exception as fault:  # noqa: BLE001 - whatever the engine raises ends this trajectory alone
            reason, error = StopReason.engine_error, _describe(fault)
            del stream[len(stream) - len(context) :]
            break
        stream += generation.ids
        step = _read(chat, context, generation)
        if step.call is not None and step.is_finish:
            steps.append(step)
            answer = finish_answer(step.call.arguments)
            reason = StopReason.gave_up if answer is None else StopReason.finished
            break
        try:
            observation = await _observe(step, session, tool_timeout_s)
        except Exception as fault:  # noqa: BLE001 - a tool's failure is an observation; this is the world's
            steps.append(step)
            reason, error = StopReason.world_error, _describe(fault)
            break
        steps.append(step.model_copy(update={"observation": observation}))
        if len(steps) == sampling.max_calls:
            reason = StopReason.call_budget
            break
        context = chat.observation_ids(observation.text, previous_ended=chat.ended(generation.ids))

    trajectory = Trajectory.create(
        task_id=task.id,
        subset=task.subset,
        steps=tuple(steps),
        stop_reason=reason,
        answer=answer,
        policy=policy,
        world=world,
        sampling=sampling,
        seed=seed,
        attempt=attempt,
        error=error,
    )
    # What the engine saw last is a prefix of what is trained on, token by token.
    if trajectory.token_ids != tuple(stream):
        raise AssertionError(f"task {task.id}: the steps do not add up to the token stream")
    return trajectory


async def run_rollouts(
    jobs: Sequence[Job], concurrency: int, on_done: Callable[[Trajectory], None] | None = None
) -> list[Trajectory]:
    """Run all jobs, at most `concurrency` at once; trajectories in the order of the jobs.

    `on_done` is called as each ends, in whatever order that is. An exception of a job (a defect: rollouts
    raise none) cancels the others.
    """
    slots = asyncio.Semaphore(concurrency)

    async def run(job: Job) -> Trajectory:
        async with slots:
            trajectory = await job()
        if on_done is not None:
            on_done(trajectory)
        return trajectory

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(job)) for job in jobs]
    return [task.result() for task in tasks]


def finish_answer(arguments: dict[str, Any]) -> str | None:
    """The answer of a `Finish` call as text; None where it gave up. What is not a string becomes JSON: 12, ["a"]."""
    answer = arguments.get("answer")
    return answer if answer is None or isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def _read(chat: ChatFormat, context: tuple[int, ...], generation: Generation) -> Step:
    parsed = chat.parse(generation.ids)
    problem = parsed.parse_error
    if problem is not None and not generation.stopped:
        problem += f" (cut after {len(generation.ids)} tokens)"
    return Step(
        thought=parsed.thought,
        call=parsed.call,
        parse_error=problem,
        context_ids=context,
        action_ids=generation.ids,
        action_logprobs=generation.logprobs,
    )


async def _observe(step: Step, session: Session, timeout_s: float) -> Observation:
    if step.call is None:
        text = f'parse error: {step.parse_error}. Use: name {{"arg": value}}'
        return Observation(text=text, error="parse_error")
    observation = await _call(step.call, session, timeout_s)
    return observation.model_copy(update={"text": clean_text(observation.text)})


async def _call(call: ToolCall, session: Session, timeout_s: float) -> Observation:
    try:
        async with asyncio.timeout(timeout_s) as limit:
            observation = await session.call(call.name, call.arguments)
    except TimeoutError:
        if not limit.expired():  # the tool's own, not ours
            raise
        return Observation(text=f"error: {call.name} did not answer within {timeout_s:g} s", error="timeout")
    if not isinstance(observation, Observation):
        raise TypeError(f"{call.name} returned {type(observation).__name__}, not an Observation")
    return observation


def _check(generation: Generation) -> None:
    ids, logprobs = generation.ids, generation.logprobs
    if not ids:
        raise ValueError("the engine returned no tokens")
    if len(ids) != len(logprobs):
        raise ValueError(f"the engine returned {len(ids)} tokens but {len(logprobs)} log-probabilities")
    if not all(map(math.isfinite, logprobs)):
        raise ValueError("the engine returned a log-probability that is not finite")


def _step_seed(task: Task, seed: int, attempt: int, step: int) -> int:
    """Its own seed for each action: what is sampled does not depend on which requests share a batch."""
    return int(content_hash([seed, task.id, attempt, step], 8), 16)


def _describe(fault: Exception) -> str:
    return clean_text(f"{type(fault).__name__}: {fault}")

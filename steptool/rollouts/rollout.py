"""One attempt at one task, and many of them at once.

    prompt → action → observation → action → … → Finish, or a budget, or a fault

A bad rollout is a record with a stop reason, never an exception: a call that cannot be read and a tool
that fails or hangs are observations the policy learns from; a broken engine or world ends the trajectory.

A world is code of somebody else. Each of its calls runs as an asyncio task of its own, so that a tool that cancels,
exits or never comes back ends its own attempt at most; what it returns is cut, made valid and built anew. Calls share
the thread with all attempts: a tool that blocks it holds everybody up, until it returns.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

from steptool.core.errors import WorldError, describe
from steptool.core.types import (
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
from steptool.formats.json_call import ChatFormat, clean_text
from steptool.worlds.base import Session

NOT_FINITE = "the engine returned a log-probability that is not finite"
"""What `Trajectory.error` ends with where the policy computes NaN or infinities."""


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
    open_session: Callable[[], Session],
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
    """Act until `Finish`, a budget or a fault. Raises nothing but cancellation and Ctrl-C.

    `open_session` is called once; where it raises, or the task's tools cannot be described, the trajectory is a
    `world_error` without steps. The last allowed action is carried out like any other, so that a judge can see what
    came of it.
    """
    steps: list[Step] = []
    stream: list[int] = []

    def ended(reason: StopReason, *, answer: str | None = None, error: str | None = None) -> Trajectory:
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

    try:
        session, context = open_session(), chat.prompt_ids(task)
    except KeyboardInterrupt:  # a person's, not the world's
        raise
    except BaseException as fault:  # noqa: BLE001 - whatever it is, it is this attempt's alone
        return ended(StopReason.world_error, error=describe(fault))
    while True:
        room = sampling.max_tokens - len(stream) - len(context)
        if room < 1:
            return ended(StopReason.token_budget)
        try:
            generation = await generator.generate(
                (*stream, *context),
                max_tokens=min(room, sampling.max_step_tokens),
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=_step_seed(task, seed, attempt, len(steps)),
                stop_ids=chat.stop_ids,
            )
            _check(generation)
            step = _read(chat, context, generation)
        except Exception as fault:  # noqa: BLE001 - whatever the engine raises ends this trajectory alone
            return ended(StopReason.engine_error, error=describe(fault))
        stream += (*context, *generation.ids)
        if step.call is not None and step.is_finish:
            steps.append(step)
            answer = finish_answer(step.call.arguments)
            return ended(StopReason.gave_up if answer is None else StopReason.finished, answer=answer)
        try:
            observation = await _observe(step, session, tool_timeout_s)
        except (KeyboardInterrupt, asyncio.CancelledError):  # a tool's own cancellation is a WorldError by now
            raise
        except BaseException as fault:  # noqa: BLE001 - a tool's failure is an observation; this is the world's
            steps.append(step)
            return ended(StopReason.world_error, error=describe(fault))
        steps.append(step.model_copy(update={"observation": observation}))
        if len(steps) == sampling.max_calls:
            return ended(StopReason.call_budget)
        context = chat.observation_ids(observation.text, previous_ended=chat.ended(generation.ids))


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
    return _cleaned(await _call(step.call, session, timeout_s))


async def _call(call: ToolCall, session: Session, timeout_s: float) -> Observation:
    reply = asyncio.create_task(_reply(call, session))
    reply.add_done_callback(_read_exception)
    try:
        await asyncio.wait({reply}, timeout=timeout_s)
        if not reply.done():
            return Observation(text=f"error: {call.name} did not answer within {timeout_s:g} s", error="timeout")
        if reply.cancelled():
            raise WorldError(f"{call.name} cancelled its own call")
        observation = reply.result()
    finally:
        reply.cancel()  # a tool may refuse to end, so nobody waits for that
    if not isinstance(observation, Observation):
        raise TypeError(f"{call.name} returned {type(observation).__name__}, not an Observation")
    return observation


async def _reply(call: ToolCall, session: Session) -> Observation:
    try:
        # A copy: what a tool does to its arguments must not change what the policy is recorded to have said.
        return await session.call(call.name, deepcopy(call.arguments))
    except SystemExit as fault:  # it would end the event loop, and with it every attempt
        raise WorldError(f"{call.name} raised {describe(fault)}") from fault


def _read_exception(reply: asyncio.Task[Observation]) -> None:
    """For a call that fails after its timeout: Python prints the exceptions of tasks that no code has read."""
    if not reply.cancelled():
        reply.exception()


def _cleaned(observation: Observation) -> Observation:
    """Built anew from what the world returned, for it may have left out the checks: raises where that is impossible."""
    latency = observation.latency_s
    return Observation(
        text=clean_text(observation.text),
        error=None if observation.error is None else clean_text(observation.error),
        latency_s=latency if math.isfinite(latency) and latency >= 0 else 0.0,
    )


def _check(generation: Generation) -> None:
    ids, logprobs = generation.ids, generation.logprobs
    if not ids:
        raise ValueError("the engine returned no tokens")
    if len(ids) != len(logprobs):
        raise ValueError(f"the engine returned {len(ids)} tokens but {len(logprobs)} log-probabilities")
    if not all(map(math.isfinite, logprobs)):
        raise ValueError(NOT_FINITE)


def _step_seed(task: Task, seed: int, attempt: int, step: int) -> int:
    """Its own seed for each action: what is sampled does not depend on which requests share a batch."""
    return int(content_hash([seed, task.id, attempt, step], 8), 16)

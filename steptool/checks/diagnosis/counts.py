"""Counts over the attempts of a round: how they ended, what they called, what came back."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest
from statistics import fmean
from typing import Literal

from steptool.checks.diagnosis.findings import RoundCounts, TaskCounts, ToolCounts
from steptool.core.errors import InputError
from steptool.core.types import Observation, ScoredTrajectory, Step, StopReason, Task, Tool, ToolCall, Trajectory
from steptool.worlds.project.arguments import Arguments

ENDED = (StopReason.finished, StopReason.gave_up)
BUDGETS = (StopReason.call_budget, StopReason.token_budget)
TIMEOUT = "timeout"
"""`Observation.error` of a call that did not come back in time."""
SAME_RETURN = 1e-9
"""Returns that are nearer than this are the same."""


def round_counts(scored: Sequence[ScoredTrajectory]) -> RoundCounts:
    """Zeros of an empty round."""
    attempts = [item.trajectory for item in scored]
    verdicts = [item.solved for item in scored if item.solved is not None]
    return RoundCounts(
        policy=str(attempts[0].policy) if attempts else "",
        attempts=len(attempts),
        endings=dict(Counter(each.stop_reason.value for each in attempts).most_common()),
        solved=fmean(verdicts) if verdicts else None,
        without_verdict=len(scored) - len(verdicts),
        calls=_mean([len(list(calls_of(each))) for each in attempts]),
        tokens=_mean([sampled_tokens(each) for each in attempts]),
        without_call=sum(answers_without_a_call(each) for each in attempts),
        cut_actions=sum(is_cut(each, step) for each in attempts for step in each.steps),
        attempts_cut=sum(
            each.stop_reason in BUDGETS or any(is_cut(each, step) for step in each.steps) for each in attempts
        ),
    )


def task_counts(scored: Sequence[ScoredTrajectory], returns: Sequence[float]) -> TaskCounts:
    """`returns`: of each attempt."""
    verdicts: dict[str, list[float]] = defaultdict(list)
    earned: dict[str, list[float]] = defaultdict(list)
    for item, value in zip(scored, returns, strict=True):
        earned[item.trajectory.task_id].append(value)
        if item.solved is not None:
            verdicts[item.trajectory.task_id].append(item.solved)
    compared = [values for values in earned.values() if len(values) > 1]
    return TaskCounts(
        tasks=len(earned),
        all_solved=sum(min(own) == 1 for own in verdicts.values()),
        none_solved=sum(max(own) == 0 for own in verdicts.values()),
        some_solved=sum(max(own) > 0 and min(own) < 1 for own in verdicts.values()),
        unknown=len(earned) - len(verdicts),
        compared=len(compared),
        alike=sum(max(values) - min(values) < SAME_RETURN for values in compared),
    )


def tool_counts(trajectories: Sequence[Trajectory], tasks: Mapping[str, Task]) -> tuple[ToolCounts, ...]:
    """By tool, the one with most failures first. A malformed call shows where its task is among `tasks`."""
    calls: Counter[str] = Counter()
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    errors: dict[str, Counter[str]] = defaultdict(Counter)
    for each in trajectories:
        for call, seen in calls_of(each):
            calls[call.name] += 1
            error = seen.error if seen is not None else None
            fault = fault_of(call, tasks.get(each.task_id)) or ("timeouts" if error == TIMEOUT else None)
            if fault is not None:
                counted[call.name][fault] += 1
            elif error is not None:
                errors[call.name][error] += 1
    found = [
        ToolCounts(tool=name, calls=count, **counted[name], errors=dict(errors[name].most_common()))
        for name, count in calls.items()
    ]
    return tuple(sorted(found, key=lambda each: (-each.timeouts, -each.failed - each.malformed, each.tool)))


def calls_of(trajectory: Trajectory) -> Iterator[tuple[ToolCall, Observation | None]]:
    """Every call of a tool and what came back, `Finish` left out; None where nothing did."""
    for step in trajectory.steps:
        if step.is_finish:
            continue
        yield from zip_longest(step.action.calls, step.observations[: len(step.action.calls)])


def answers_without_a_call(trajectory: Trajectory) -> bool:
    return trajectory.stop_reason in ENDED and next(calls_of(trajectory), None) is None


def sampled_tokens(trajectory: Trajectory) -> int:
    return sum(len(step.action_ids) for step in trajectory.steps)


def is_cut(trajectory: Trajectory, step: Step) -> bool:
    """Whether the action ran into max_step_tokens and could not be read."""
    conditions = trajectory.conditions
    if conditions is None or step.action.unreadable is None:
        return False
    return len(step.action_ids) >= conditions.sampling.max_step_tokens


def fault_of(call: ToolCall, task: Task | None) -> Literal["not_offered", "bad_arguments"] | None:
    """Why no tool can take a call; None where one can, or its task is not known."""
    if task is None:
        return None
    tool = task.tool(call.name)
    if tool is None:
        return "not_offered"
    arguments = _arguments(tool.model_dump_json())
    return "bad_arguments" if arguments is not None and arguments.problem(call.arguments) else None


@lru_cache(maxsize=1024)
def _arguments(tool: str) -> Arguments | None:
    """None where the tool's parameters are no schema: nothing breaks them."""
    try:
        return Arguments(Tool.model_validate_json(tool), where="the task")
    except InputError:
        return None


def _mean(values: Sequence[int]) -> float:
    return fmean(values) if values else 0.0

"""The same task under two policies, side by side: which tasks to show, and every step of both. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from steptool.core.types import FINISH, Judgement, Observation, ScoredTrajectory, Step, Task, ToolCall
from steptool.evaluation.compare import Comparison
from steptool.evaluation.failures import failure_cause
from steptool.evaluation.metrics import Evaluation

WON, LOST = 3, 2
"""Tasks shown that the candidate newly solves, and that it no longer solves."""

MAX_TEXT = 1_200
"""Characters shown of one text; tool output is as long as the tool pleases."""


@dataclass(frozen=True)
class CallView:
    tool: str
    arguments: str
    observation: str | None
    error: str | None


@dataclass(frozen=True)
class StepView:
    thought: str
    calls: tuple[CallView, ...]
    message: str | None
    unreadable: str | None
    observation: str | None
    """The reply to a message, or to an action that could not be read."""
    success: float | None
    contribution: float | None
    solved: float | None
    reward: float | None
    reason: str


@dataclass(frozen=True)
class Side:
    policy: str
    solved: float | None
    outcome: str
    steps: tuple[StepView, ...]


@dataclass(frozen=True)
class Example:
    task: Task
    won: bool
    before: Side
    after: Side


def choose_tasks(candidate: Evaluation, baseline: Evaluation, tasks: Sequence[Task], *, won: bool) -> list[Task]:
    """Tasks whose outcome changed, largest change first, one of each group before a second of any."""
    sign = 1 if won else -1
    change = {task.id: sign * (candidate.solved[task.id] - baseline.solved[task.id]) for task in tasks}
    changed = sorted((task for task in tasks if change[task.id] > 0), key=lambda task: -change[task.id])
    seen: dict[str, int] = {}
    rank = {}
    for task in changed:
        rank[task.id] = seen[task.group] = seen.get(task.group, 0) + 1
    return sorted(changed, key=lambda task: rank[task.id])[: WON if won else LOST]


def examples(
    comparison: Comparison,
    evaluations: Mapping[str, Evaluation],
    judged: Mapping[str, Sequence[ScoredTrajectory]],
    tasks: Iterable[Task],
    rewards: Mapping[str, Sequence[float]],
) -> list[Example]:
    """Examples won, then lost. A task without a trajectory of either policy is left out."""
    candidate, baseline = evaluations[comparison.candidate], evaluations[comparison.baseline]
    attempts = {name: _by_task(judged.get(name, ())) for name in (comparison.candidate, comparison.baseline)}
    shown = [
        task
        for task in tasks
        if task.id in candidate.solved and all(task.id in by_task for by_task in attempts.values())
    ]
    found = []
    for won in (True, False):
        for task in choose_tasks(candidate, baseline, shown, won=won):
            # With several attempts, the ones that show the change: the best of the winner, the worst of the loser.
            after = _pick(attempts[candidate.name][task.id], best=won)
            before = _pick(attempts[baseline.name][task.id], best=not won)
            found.append(
                Example(task, won, _side(baseline.name, before, rewards), _side(candidate.name, after, rewards))
            )
    return found


def _by_task(judged: Iterable[ScoredTrajectory]) -> dict[str, list[ScoredTrajectory]]:
    by_task: dict[str, list[ScoredTrajectory]] = {}
    for scored in judged:
        by_task.setdefault(scored.trajectory.task_id, []).append(scored)
    return by_task


def _pick(attempts: Sequence[ScoredTrajectory], *, best: bool) -> ScoredTrajectory:
    sign = -1 if best else 1
    return min(attempts, key=lambda scored: (sign * (scored.solved or 0.0), scored.trajectory.attempt))


def _side(policy: str, scored: ScoredTrajectory, rewards: Mapping[str, Sequence[float]]) -> Side:
    trajectory = scored.trajectory
    own = rewards.get(trajectory.id)
    steps = tuple(
        _view(step, judgement, own[index] if own else None)
        for index, (step, judgement) in enumerate(zip(trajectory.steps, scored.judgements, strict=True))
    )
    outcome = "solved" if scored.solved == 1 else failure_cause(trajectory).value
    return Side(policy, scored.solved, outcome, steps)


def _view(step: Step, judgement: Judgement, reward: float | None) -> StepView:
    calls = step.action.calls
    replies = step.observations if calls and not step.is_finish else ()
    shown = tuple(_call(call, reply) for call, reply in zip_longest(calls, replies))
    after = step.reply
    if step.action.unreadable is not None and step.observations:
        after = step.observations[0].text
    return StepView(
        thought=cut(step.action.thought),
        calls=shown,
        message=None if step.action.message is None else cut(step.action.message),
        unreadable=step.action.unreadable,
        observation=None if after is None else cut(after),
        success=judgement.success,
        contribution=judgement.contribution,
        solved=judgement.solved,
        reward=reward,
        reason=judgement.reason,
    )


def _call(call: ToolCall, reply: Observation | None) -> CallView:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    if call.name == FINISH and set(call.arguments) == {"answer"}:
        arguments = str(call.arguments["answer"])
    return CallView(call.name, cut(arguments), cut(reply.text) if reply else None, reply.error if reply else None)


def cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + f" … ({len(text) - MAX_TEXT} more characters)"

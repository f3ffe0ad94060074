"""The same task under two policies, side by side: which tasks to show, and every step of both. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from steptool.core.types import FINISH, Judgement, Observation, ScoredTrajectory, Step, Task, ToolCall
from steptool.evaluation.compare import Comparison
from steptool.evaluation.failures import Cause, failure_cause
from steptool.evaluation.metrics import Evaluation, Primary
from steptool.trajectories.links import is_grounded

WON, LOST = 3, 2
"""Tasks shown that the candidate does better, and that it does worse."""

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
    good: bool
    """It solved the task, or where nobody can tell, its answer is grounded."""
    outcome: str
    steps: tuple[StepView, ...]


@dataclass(frozen=True)
class Example:
    task: Task
    won: bool
    before: Side
    after: Side


def choose_tasks(
    candidate: Evaluation, baseline: Evaluation, tasks: Sequence[Task], *, won: bool, measure: Primary = "solved"
) -> list[Task]:
    """Tasks whose value of the measure changed, largest change first, one of each group before a second of any."""
    sign = 1 if won else -1
    after, before = candidate.values(measure), baseline.values(measure)
    change = {task: sign * (after[task] - before[task]) for task in after if task in before}
    changed = sorted((task for task in tasks if change.get(task.id, 0) > 0), key=lambda task: -change[task.id])
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
        for task in choose_tasks(candidate, baseline, shown, won=won, measure=comparison.measure):
            # With several attempts, the ones that show the change: the best of the winner, the worst of the loser.
            after = _pick(attempts[candidate.name][task.id], task, comparison.measure, best=won)
            before = _pick(attempts[baseline.name][task.id], task, comparison.measure, best=not won)
            sides = (_side(baseline.name, before, task, rewards), _side(candidate.name, after, task, rewards))
            found.append(Example(task, won, *sides))
    return found


def _by_task(judged: Iterable[ScoredTrajectory]) -> dict[str, list[ScoredTrajectory]]:
    by_task: dict[str, list[ScoredTrajectory]] = {}
    for scored in judged:
        by_task.setdefault(scored.trajectory.task_id, []).append(scored)
    return by_task


def _pick(attempts: Sequence[ScoredTrajectory], task: Task, measure: Primary, *, best: bool) -> ScoredTrajectory:
    sign = -1 if best else 1

    def value(scored: ScoredTrajectory) -> float:
        return (scored.solved or 0.0) if measure == "solved" else float(is_grounded(scored.trajectory, task.query))

    return min(attempts, key=lambda scored: (sign * value(scored), scored.trajectory.attempt))


def _side(policy: str, scored: ScoredTrajectory, task: Task, rewards: Mapping[str, Sequence[float]]) -> Side:
    trajectory = scored.trajectory
    own = rewards.get(trajectory.id)
    steps = tuple(
        _view(step, judgement, own[index] if own else None)
        for index, (step, judgement) in enumerate(zip(trajectory.steps, scored.judgements, strict=True))
    )
    good, outcome = scored.solved == 1, "solved"
    if not good:
        cause = failure_cause(scored)
        good = cause is Cause.unjudged and is_grounded(trajectory, task.query)
        outcome = "grounded answer" if good else "answer without ground" if cause is Cause.unjudged else cause.value
    return Side(policy, scored.solved, good, outcome, steps)


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

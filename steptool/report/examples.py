"""The same task under two policies, side by side: which tasks to show, and every step of both. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from steptool.core.types import FINISH, ScoredTrajectory, Step, Task
from steptool.evaluation.compare import Comparison
from steptool.evaluation.failures import failure_cause
from steptool.evaluation.metrics import Evaluation

WON, LOST = 3, 2
"""Tasks shown that the candidate newly solves, and that it no longer solves."""

MAX_TEXT = 1_200
"""Characters shown of one text; tool output is as long as the tool pleases."""


@dataclass(frozen=True)
class StepView:
    thought: str
    tool: str
    arguments: str
    parse_error: str | None
    observation: str | None
    error: str | None
    success: float | None
    contribution: float | None
    solved: float | None
    reward: float | None
    reason: str


@dataclass(frozen=True)
class Side:
    policy: str
    solved: float
    outcome: str
    steps: tuple[StepView, ...]


@dataclass(frozen=True)
class Example:
    task: Task
    won: bool
    before: Side
    after: Side


def choose_tasks(candidate: Evaluation, baseline: Evaluation, tasks: Sequence[Task], *, won: bool) -> list[Task]:
    """Tasks whose outcome changed, largest change first, one of each subset before a second of any."""
    sign = 1 if won else -1
    change = {task.id: sign * (candidate.solved[task.id] - baseline.solved[task.id]) for task in tasks}
    changed = sorted((task for task in tasks if change[task.id] > 0), key=lambda task: -change[task.id])
    seen: dict[str, int] = {}
    rank = {}
    for task in changed:
        rank[task.id] = seen[task.subset] = seen.get(task.subset, 0) + 1
    return sorted(changed, key=lambda task: rank[task.id])[: WON if won else LOST]


def examples(
    comparison: Comparison,
    evaluations: Mapping[str, Evaluation],
    judged: Mapping[str, Sequence[ScoredTrajectory]],
    tasks: Iterable[Task],
    rewards: Mapping[str, Sequence[float]],
) -> list[Example]:
    """Examples won, then lost. A task that either policy has no trajectory for is passed over."""
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
    return min(attempts, key=lambda scored: (-scored.solved if best else scored.solved, scored.trajectory.attempt))


def _side(policy: str, scored: ScoredTrajectory, rewards: Mapping[str, Sequence[float]]) -> Side:
    trajectory = scored.trajectory
    own = rewards.get(trajectory.id)
    steps = tuple(
        StepView(
            thought=cut(step.thought),
            tool=step.call.name if step.call else "",
            arguments=cut(_arguments(step)),
            parse_error=step.parse_error,
            observation=None if step.is_finish or step.observation is None else cut(step.observation.text),
            error=step.observation.error if step.observation else None,
            success=judgement.success,
            contribution=judgement.contribution,
            solved=judgement.solved,
            reward=own[index] if own else None,
            reason=judgement.reason,
        )
        for index, (step, judgement) in enumerate(zip(trajectory.steps, scored.judgements, strict=True))
    )
    outcome = "solved" if scored.solved == 1 else failure_cause(trajectory).value
    return Side(policy, scored.solved, outcome, steps)


def _arguments(step: Step) -> str:
    if step.call is None:
        return ""
    if step.call.name == FINISH and set(step.call.arguments) == {"answer"}:
        return str(step.call.arguments["answer"])
    return json.dumps(step.call.arguments, ensure_ascii=False)


def cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + f" … ({len(text) - MAX_TEXT} more characters)"

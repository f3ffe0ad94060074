"""What attempts do, and what a training may know of how they ended. Pure."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from steptool.core.types import Frozen, Outcome, Reference, ScoredTrajectory, StopReason, Trajectory, content_hash
from steptool.rewards.costs import OUT_OF_BUDGET


@dataclass(frozen=True)
class Corner:
    """What a training is given: so many attempts at so many tasks, and what it knows of how they ended."""

    name: str
    tasks: int
    attempts: int
    verdict: Literal["exact", "wrong", "none"]
    """wrong: of the answers, the share `wrong` is judged wrongly; none: no attempt has a verdict. In both the list of
    relevant tools is hidden too: who has one could check the answers."""
    wrong: float = 0.0
    profile: str = ""
    """Settings over those of params.yaml: the name of a file in profiles/."""


def as_known(
    attempts: Sequence[Trajectory], references: Mapping[str, Reference], corner: Corner, seed: int
) -> tuple[list[Trajectory], Mapping[str, Reference]]:
    """Attempts and references as the training of a corner knows them."""
    if corner.verdict == "exact":
        return list(attempts), references
    hidden = {task: Reference(task_id=task) for task in references}
    if corner.verdict == "none":
        return [without_verdict(attempt) for attempt in attempts], hidden
    return [misjudged(attempt, corner.wrong, seed) for attempt in attempts], hidden


def without_verdict(attempt: Trajectory) -> Trajectory:
    return Trajectory.create(**{**dict(attempt), "outcome": Outcome()})


def misjudged(attempt: Trajectory, share: float, seed: int) -> Trajectory:
    """With the verdict on its answer turned round for this share of all answers: the same one for the same answer to
    the same task. An attempt without an answer or a verdict stays as it is."""
    solved = attempt.outcome.solved
    if attempt.stop_reason is not StopReason.finished or solved is None:
        return attempt
    drawn = int(content_hash([seed, attempt.task_id, attempt.answer]), 16)
    if drawn % 1_000_000 >= share * 1_000_000:
        return attempt
    turned = Outcome(solved=1 - solved, evidence=attempt.outcome.evidence)
    return Trajectory.create(**{**dict(attempt), "outcome": turned})


def without_score(scored: ScoredTrajectory, name: str) -> ScoredTrajectory:
    """With this score of the calls 0 wherever there is one."""
    judgements = tuple(
        judgement.model_copy(update={"scores": {**judgement.scores, name: 0.0}})
        if judgement.scores.get(name) is not None
        else judgement
        for judgement in scored.judgements
    )
    return scored.model_copy(update={"judgements": judgements})


class Habits(Frozen):
    """What attempts do; shares of them but for `calls`."""

    attempts: int
    solved: float
    """By the world's own verdict, of those that have one."""
    finished: float
    gave_up: float
    out_of_budget: float
    repeats: float
    """Make a call again, with the same arguments, that had succeeded."""
    calls: float
    """Actions of an attempt."""


def habits(scored: Sequence[ScoredTrajectory]) -> Habits:
    ends = [item.trajectory.stop_reason for item in scored]
    verdicts = [item.solved for item in scored if item.solved is not None]
    return Habits(
        attempts=len(scored),
        solved=_mean(verdicts),
        finished=_mean([end is StopReason.finished for end in ends]),
        gave_up=_mean([end is StopReason.gave_up for end in ends]),
        out_of_budget=_mean([end in OUT_OF_BUDGET for end in ends]),
        repeats=_mean([repeats(item) for item in scored]),
        calls=_mean([len(item.trajectory.steps) for item in scored]),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def repeats(scored: ScoredTrajectory) -> bool:
    """Whether it makes a call again, with the same arguments, that had succeeded."""
    done: set[str] = set()
    for step, judgement in zip(scored.trajectory.steps, scored.judgements, strict=True):
        made = {json.dumps([call.name, call.arguments], sort_keys=True) for call in step.action.calls}
        if made & done:
            return True
        if judgement.success == 1:
            done |= made
    return False


def within_tasks(tasks: Sequence[str], first: Sequence[float], second: Sequence[float]) -> float | None:
    """Correlation of two numbers of each attempt, both less their mean over the attempts at its task; None where one
    of them varies in no task."""
    by_task: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for task, *pair in zip(tasks, first, second, strict=True):
        by_task[task].append((pair[0], pair[1]))
    centred = np.concatenate([np.array(pairs) - np.mean(pairs, axis=0) for pairs in by_task.values()])
    products = centred.T @ centred
    scale = float(np.sqrt(products[0, 0] * products[1, 1]))
    return float(products[0, 1]) / scale if scale > 1e-12 else None

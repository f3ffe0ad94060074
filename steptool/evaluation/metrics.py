"""What a policy does with a fixed set of tasks at a fixed budget. Pure.

Every rate has a fixed denominator: the task list. A task without a trajectory, and an attempt that
is missing, counts as unsolved and unfinished, so that a policy gains nothing by crashing. What a fault of the engine or
the world ended counts so too, and apart as well (`Evaluation.broken`): it was not measured.
Several attempts at a task are averaged first; the bootstrap then draws tasks, the independent unit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from steptool.core.errors import DataError
from steptool.core.types import (
    SUBSETS,
    Frozen,
    Revision,
    Sampling,
    ScoredTrajectory,
    StopReason,
    Task,
    Trajectory,
    content_hash,
)
from steptool.evaluation.bootstrap import Estimate, bootstrap_ratios

Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]

METRICS: Mapping[str, str] = {
    "pass_rate": "mean verdict over all tasks",
    "finish_rate": "share of attempts that end with an answer",
    "pass_rate_finished": "mean verdict over the attempts that end with an answer",
    "tool_recall": "share of a task's relevant tools that were called",
    "calls_per_task": "actions of an attempt, Finish included",
    "tokens_per_task": "tokens sampled in an attempt",
    "call_success": "share of calls (the last step apart) that succeeded",
}
ROUNDING = 1e-9
"""How far above 1 rounding may put a rate."""
COUNTS = frozenset({"calls_per_task", "tokens_per_task"})
"""The metrics that are no rates, and may be above 1."""

ALL = "all"
ROLL_UPS: Mapping[str, str] = {"I1": "G1_", "I2": "G2_", "I3": "G3_"}
"""ToolBench's names of the three instruction groups, and the subsets that each gathers."""


class Budget(Frozen):
    """The conditions of an evaluation. Two evaluations may be compared only when these are equal."""

    max_calls: int = Field(ge=1)
    """Most actions of one attempt, `Finish` included."""
    max_tokens: int = Field(ge=1)
    """Most tokens of one attempt, context included."""
    max_step_tokens: int = Field(ge=1)
    """Most sampled tokens of one action."""
    temperature: float = Field(ge=0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0, le=1)
    strategy: str
    attempts: int = Field(ge=1)
    """Attempts at every task, averaged."""
    world: Revision
    annotator: Revision
    split: str
    task_ids_hash: str
    dtype: str = "float32"
    """Of the engine's computation."""

    @classmethod
    def of(
        cls,
        tasks: Sequence[Task],
        sampling: Sampling,
        *,
        attempts: int,
        world: Revision,
        annotator: Revision,
        split: str,
        dtype: str = "float32",
    ) -> Budget:
        return cls(
            **sampling.model_dump(),
            attempts=attempts,
            world=world,
            annotator=annotator,
            split=split,
            task_ids_hash=task_ids_hash(task.id for task in tasks),
            dtype=dtype,
        )


class Evaluation(Frozen):
    """One policy, measured; what `metrics/<name>.json` holds."""

    name: str
    """Short name of the policy in tables: sft, r1, …, rft."""
    policy: Revision
    budget: Budget
    confidence: float = Field(gt=0, lt=1)
    """Coverage of the intervals in `metrics`."""
    broken: Rate
    """Share of the attempts that a fault of the engine or the world ended, or that are missing."""
    solved: dict[str, Rate]
    """Task id → mean verdict of its attempts, in [0, 1]; every task is in it."""
    subsets: dict[str, tuple[str, ...]]
    """Subset → its task ids."""
    metrics: dict[str, dict[str, Estimate]]
    """Group (each subset, I1, I2, I3, all) → metric (see METRICS) → estimate."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if task_ids_hash(self.solved) != self.budget.task_ids_hash:
            raise ValueError(f"{len(self.solved)} task ids do not match the budget's task_ids_hash")
        listed = sorted(task for tasks in self.subsets.values() for task in tasks)
        if listed != sorted(self.solved):
            raise ValueError("subsets and solved list different tasks")
        if ALL not in self.metrics:
            raise ValueError(f"metrics has no group {ALL!r}")
        for group, row in self.metrics.items():
            if not {"pass_rate", *(["finish_rate"] if group == ALL else [])} <= row.keys():
                raise ValueError(f"metrics.{group} lacks pass_rate or finish_rate")
            if row["pass_rate"].value is None or (group == ALL and row["finish_rate"].value is None):
                raise ValueError(f"metrics.{group} has a pass_rate or finish_rate without a value")
            for metric, estimate in row.items():
                if metric not in COUNTS and estimate.largest > 1 + ROUNDING:
                    raise ValueError(f"metrics.{group}.{metric} is a rate of {estimate.largest:g}")
        return self

    @property
    def groups(self) -> dict[str, list[str]]:
        """Group → task ids, in the order of the tables."""
        return group_tasks({task: subset for subset, tasks in self.subsets.items() for task in tasks})

    @property
    def pass_rate(self) -> float:
        return self.metrics[ALL]["pass_rate"].value or 0.0

    @property
    def finish_rate(self) -> float:
        return self.metrics[ALL]["finish_rate"].value or 0.0

    def summary(self) -> dict[str, float]:
        """Flat numbers over all tasks, and the pass rate of every group: for tracking and `dvc metrics`."""
        flat = {metric: estimate.value for metric, estimate in self.metrics[ALL].items()}
        flat |= {f"pass_rate_{group}": row["pass_rate"].value for group, row in self.metrics.items() if group != ALL}
        return {name: value for name, value in flat.items() if value is not None} | {"broken": self.broken}


def task_ids_hash(task_ids: Iterable[str]) -> str:
    return content_hash(sorted(task_ids))


def group_tasks(subset_of: Mapping[str, str]) -> dict[str, list[str]]:
    """Task ids of each subset present, of each roll-up, and of all; ids keep their order."""
    present = set(subset_of.values())
    order = [subset for subset in SUBSETS if subset in present] + sorted(present - set(SUBSETS))
    groups = {subset: [task for task, own in subset_of.items() if own == subset] for subset in order}
    for name, prefix in ROLL_UPS.items():
        if members := [task for task, own in subset_of.items() if own in SUBSETS and own.startswith(prefix)]:
            groups[name] = members
    return groups | {ALL: list(subset_of)}


def evaluate(
    name: str,
    policy: Revision,
    scored: Sequence[ScoredTrajectory],
    tasks: Sequence[Task],
    budget: Budget,
    *,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> Evaluation:
    """Measure one policy on `tasks`.

    Raises DataError for a trajectory of an unknown task, of another policy, sampled under other conditions
    than `budget` says, or beyond the attempts that the budget allows.
    """
    by_task = attempts_by_task(scored, tasks, policy, budget)
    fractions = np.array([_task_fractions(by_task[task.id], task, budget.attempts) for task in tasks])
    fractions = fractions.reshape(len(tasks), len(METRICS), 2)
    solved = {task.id: float(fractions[row, 0, 0]) for row, task in enumerate(tasks)}
    groups = group_tasks({task.id: task.subset for task in tasks})
    row_of = {task.id: row for row, task in enumerate(tasks)}
    metrics = {}
    for group, members in groups.items():
        part = fractions[[row_of[task] for task in members]]
        estimates = bootstrap_ratios(
            part[:, :, 0].T, part[:, :, 1].T, resamples=resamples, confidence=confidence, rng=rng
        )
        metrics[group] = dict(zip(METRICS, estimates, strict=True))
    subsets = {subset: tuple(groups[subset]) for subset in groups if subset not in (*ROLL_UPS, ALL)}
    return Evaluation(
        name=name,
        policy=policy,
        budget=budget,
        confidence=confidence,
        broken=broken_share([record.trajectory for record in scored], len(tasks) * budget.attempts),
        solved=solved,
        subsets=subsets,
        metrics=metrics,
    )


def broken_share(trajectories: Sequence[Trajectory], expected: int) -> float:
    """Share of `expected` attempts that did not come to an end of their own."""
    ended = sum(trajectory.stop_reason.terminated for trajectory in trajectories)
    return (expected - ended) / expected if expected else 0.0


def refuse_unless_measurable(tasks: Sequence[Task], *, where: str) -> None:
    """Raise DataError for tasks that no policy could be measured on; call it before anything is sampled."""
    ids = Counter(task.id for task in tasks)
    taken = {*ROLL_UPS, ALL}
    found = None
    if not tasks:
        found, fix = "holds no tasks", "raise world.test_tasks, or world.dev_tasks, in params.yaml"
    elif repeated := [id for id, count in ids.items() if count > 1]:
        found, fix = f"holds task {repeated[0]} {ids[repeated[0]]} times", "give every task an id of its own"
    elif misnamed := [task for task in tasks if task.subset in taken]:
        found = f"task {misnamed[0].id} is of the subset {misnamed[0].subset!r}, which is the name of a table's sum"
        fix = f"name the subset otherwise: {', '.join(sorted(taken))} are taken"
    elif unchecked := [task for task in tasks if task.answer_check and task.answer_check.kind == "judge"]:
        found = f"{len(unchecked)} of {len(tasks)} tasks need a judge, task {unchecked[0].id} first, and there is none"
        fix = "evaluate on tasks with an exact answer_check (text, number or set): world.name: mini has them"
    if found:
        raise DataError(found, where=where, fix=fix)


def attempts_by_task(
    scored: Sequence[ScoredTrajectory], tasks: Sequence[Task], policy: Revision, budget: Budget
) -> dict[str, list[ScoredTrajectory]]:
    """Task id → its attempts, in their order. Raises DataError as `evaluate` does."""
    by_task: dict[str, dict[int, ScoredTrajectory]] = {task.id: {} for task in tasks}
    again = "run `dvc repro evaluate`: its inputs changed since these trajectories were made"
    for record in scored:
        trajectory = record.trajectory
        where = f"trajectory {trajectory.id} of task {trajectory.task_id}"
        if trajectory.task_id not in by_task:
            raise DataError("is of a task outside the evaluated set", where=where, fix=again)
        if trajectory.policy != policy:
            raise DataError(f"was made by {trajectory.policy}, not {policy}", where=where, fix=again)
        if not 0 <= trajectory.attempt < budget.attempts:
            raise DataError(f"is attempt {trajectory.attempt} of {budget.attempts}", where=where, fix=again)
        if trajectory.attempt in by_task[trajectory.task_id]:
            raise DataError(f"repeats attempt {trajectory.attempt}", where=where, fix=again)
        found = trajectory.sampling.model_dump() | {"world": trajectory.world, "annotator": record.annotator}
        broken = [
            f"{key} {value} against the budget's {getattr(budget, key)}"
            for key, value in found.items()
            if value != getattr(budget, key)
        ]
        if len(trajectory.steps) > budget.max_calls:
            broken.append(f"{len(trajectory.steps)} actions against the budget's {budget.max_calls}")
        if broken:
            raise DataError("broke the budget: " + "; ".join(broken), where=where, fix=again)
        by_task[trajectory.task_id][trajectory.attempt] = record
    return {task: [attempts[key] for key in sorted(attempts)] for task, attempts in by_task.items()}


def _task_fractions(attempts: Sequence[ScoredTrajectory], task: Task, expected: int) -> list[tuple[float, float]]:
    """(numerator, denominator) of each metric, in the order of METRICS, averaged over `expected` attempts.

    Rates over all tasks have the denominator 1 whether or not there was an attempt; conditional ones
    count what was there.
    """
    relevant = set(task.relevant_tools)
    total = np.zeros((len(METRICS), 2))
    for record in attempts:
        steps = record.trajectory.steps
        finished = float(record.trajectory.stop_reason is StopReason.finished)
        called = {step.call.name for step in steps if step.call is not None}
        success = [judgement.success for judgement in record.judgements if judgement.success is not None]
        total += [
            (record.solved, 0),
            (finished, 0),
            (finished * record.solved, finished),
            (len(relevant & called) / len(relevant) if relevant else 0, 0),
            (len(steps), 1),
            (sum(len(step.action_ids) for step in steps), 1),
            (sum(success), len(success)),
        ]
    total /= expected
    names = list(METRICS)
    total[names.index("pass_rate"), 1] = 1
    total[names.index("finish_rate"), 1] = 1
    total[names.index("tool_recall"), 1] = 1 if relevant else 0
    return [(float(numerator), float(denominator)) for numerator, denominator in total]

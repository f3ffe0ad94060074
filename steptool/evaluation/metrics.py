"""What a policy does with a fixed set of tasks under fixed conditions. Pure.

Every rate has a fixed denominator: the task list; of the pass rate, the tasks whose outcome somebody can tell. A task
without a trajectory, and an attempt that is missing, counts as unsolved and unfinished, so that a policy gains nothing
by crashing. So does an attempt that a fault of the engine or the world ended. `Evaluation.broken` also counts these
apart, because they say nothing about the policy.

An attempt without a verdict counts for no pass rate, and never as 0.
Several attempts at a task are averaged first; the bootstrap then draws clusters of tasks, the independent unit. A task
is a cluster of its own unless its world says otherwise (`Reference.cluster`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal, Self, TypeVar

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from steptool.core.errors import DataError, StepToolError, describe
from steptool.core.types import (
    SUBSETS,
    Conditions,
    Frozen,
    Reference,
    Revision,
    ScoredTrajectory,
    Task,
    Trajectory,
    content_hash,
)
from steptool.evaluation.base import CountsMissing, Metric
from steptool.evaluation.bootstrap import Estimate, bootstrap_ratios
from steptool.evaluation.built_in import METRICS

Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]

Row = TypeVar("Row")

Cluster = tuple[str, str]
"""Its name, or the id of its only task."""

ROUNDING = 1e-9
"""How far above 1 rounding may put a rate."""

ALL = "all"
TASKS_WITH_VERDICT = "tasks_with_verdict"
"""Their number, in a summary."""
ROLL_UPS: Mapping[str, str] = {"I1": "G1_", "I2": "G2_", "I3": "G3_"}
"""ToolBench's names of the three instruction groups, and the subsets that each gathers."""


Primary = Literal["solved", "grounded"]
"""What policies are compared on: verdicts, or grounded answers where too few tasks have a verdict."""
METRIC_OF: Mapping[Primary, str] = {"solved": "pass_rate", "grounded": "grounded"}
ENOUGH = 30
"""Tasks with a verdict that are enough to compare policies by; fewer are, where they are half of the tasks."""


class Measure(Frozen):
    """What a metric says."""

    describes: str
    is_rate: bool


def groups_in_order(rows: Mapping[str, Row]) -> dict[str, Row]:
    """Rows of a table by their group: ToolBench's subsets, other groups by their names, roll-ups, and last of all ALL.
    What was read from a file has its keys sorted."""
    totals = [*ROLL_UPS, ALL]
    return _in_order(rows, [*SUBSETS, *sorted(rows.keys() - {*SUBSETS, *totals}), *totals])


def _in_order(rows: Mapping[str, Row], order: Iterable[str]) -> dict[str, Row]:
    """Those of `order` first, as they stand there; then the others."""
    return {name: rows[name] for name in dict.fromkeys([*order, *rows]) if name in rows}


class Evaluation(Frozen):
    """One policy, measured; what `metrics/evaluation/ARM.json` holds."""

    name: str
    """Of the arm, in tables."""
    policy: Revision
    conditions: Conditions
    """The conditions of every attempt."""
    annotator: Revision
    attempts: int = Field(ge=1)
    """At every task; their results are averaged."""
    split: str
    tasks_hash: str
    """Hash of the tasks and of their references."""
    confidence: float = Field(gt=0, lt=1)
    """Coverage of the intervals in `metrics`."""
    broken: Rate
    """Share of the attempts that a fault of the engine or the world ended, or that are missing."""
    solved: dict[str, Rate | None]
    """Task id → mean verdict of those of its attempts that have one, in [0, 1]; every task is in it, None where nobody
    can tell."""
    grounded: dict[str, Rate]
    """Task id → share of its attempts with a grounded answer."""
    group_of: dict[str, str]
    """Task id → group."""
    cluster_of: dict[str, str] = Field(default_factory=dict)
    """Task id → cluster, of the tasks whose world names one."""
    measures: Annotated[dict[str, Measure], AfterValidator(lambda rows: _in_order(rows, METRICS))]
    """Metric → what it says, in the order of tables: those of this package, then the project's."""
    metrics: Annotated[dict[str, dict[str, Estimate]], AfterValidator(groups_in_order)]
    """Group → metric → estimate. The groups are those of the tasks, I1, I2, I3, and all."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.group_of.keys() == self.solved.keys() == self.grounded.keys():
            raise ValueError("group_of, solved and grounded list different tasks")
        if strangers := self.cluster_of.keys() - self.solved.keys():
            raise ValueError(f"cluster_of lists {min(strangers)}, which is none of the tasks")
        if ALL not in self.metrics:
            raise ValueError(f"metrics has no group {ALL!r}")
        groups = self.groups
        for group, row in self.metrics.items():
            if row.keys() != self.measures.keys():
                odd = ", ".join(sorted(row.keys() ^ self.measures.keys()))
                raise ValueError(f"metrics.{group} and measures do not hold the same metrics: {odd}")
            if not {"pass_rate", "finish_rate"} <= row.keys():
                raise ValueError(f"metrics.{group} lacks pass_rate or finish_rate")
            is_judged = any(self.solved[task] is not None for task in groups.get(group, groups[ALL]))
            if (row["pass_rate"].value is None) == is_judged or row["finish_rate"].value is None:
                raise ValueError(f"metrics.{group} has a pass_rate or finish_rate without a value")
            for metric, estimate in row.items():
                beyond = [number for number in estimate.numbers if not 0 <= number <= 1 + ROUNDING]
                if self.measures[metric].is_rate and beyond:
                    raise ValueError(f"metrics.{group}.{metric} is a rate of {beyond[0]:g}")
        return self

    @property
    def groups(self) -> dict[str, list[str]]:
        """Row of the tables → task ids, in their order."""
        return group_tasks(self.group_of)

    def cluster(self, task: str) -> Cluster:
        """Of the task with this id."""
        return cluster_of(task, self.cluster_of.get(task, ""))

    def clusters(self, tasks: Sequence[str]) -> list[Cluster]:
        """[tasks]: the cluster of each."""
        return list(map(self.cluster, tasks))

    @property
    def verdicts(self) -> int:
        """How many tasks have a verdict."""
        return len(self.values("solved"))

    @property
    def pass_rate(self) -> float | None:
        """None where no task has a verdict."""
        return self.rate("solved")

    def rate(self, measure: Primary) -> float | None:
        """Over all tasks that have a value."""
        return self.metrics[ALL][METRIC_OF[measure]].value

    def values(self, measure: Primary) -> dict[str, float]:
        """Task id → value, of the tasks that have one."""
        found = self.solved if measure == "solved" else self.grounded
        return {task: value for task, value in found.items() if value is not None}

    @property
    def finish_rate(self) -> float:
        return self.metrics[ALL]["finish_rate"].value or 0.0

    def summary(self) -> dict[str, float]:
        """Flat numbers over all tasks, and the pass rate of every group: for tracking and `dvc metrics`."""
        flat = {metric: estimate.value for metric, estimate in self.metrics[ALL].items()}
        flat |= {f"pass_rate_{group}": row["pass_rate"].value for group, row in self.metrics.items() if group != ALL}
        known = {name: value for name, value in flat.items() if value is not None}
        return known | {"broken": self.broken, TASKS_WITH_VERDICT: float(self.verdicts)}


def tasks_hash(tasks: Iterable[Task], references: Mapping[str, Reference]) -> str:
    """Hash of whole tasks, in any order, and of their references: another description of a tool changes it."""
    known = [(task, references[task.id]) for task in sorted(tasks, key=lambda task: task.id)]
    return content_hash([[part.model_dump(mode="json") for part in pair] for pair in known])


def cluster_of(task: str, named: str) -> Cluster:
    """The cluster of a task; `named` is empty where its world names none. No task is taken for a cluster so called."""
    return (named, "") if named else ("", task)


def group_tasks(group_of: Mapping[str, str]) -> dict[str, list[str]]:
    """Task ids of each group present, of each roll-up, and of all; ids keep their order."""
    groups: dict[str, list[str]] = {}
    for task, group in group_of.items():
        groups.setdefault(group, []).append(task)
    for name, prefix in ROLL_UPS.items():
        if members := [task for task, own in group_of.items() if own in SUBSETS and own.startswith(prefix)]:
            groups[name] = members
    return groups_in_order(groups | {ALL: list(group_of)})


def evaluate(
    name: str,
    policy: Revision,
    scored: Sequence[ScoredTrajectory],
    tasks: Sequence[Task],
    references: Mapping[str, Reference],
    *,
    conditions: Conditions,
    annotator: Revision,
    attempts: int,
    split: str,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
    more: Mapping[str, Metric] | None = None,
) -> Evaluation:
    """Measure one policy on `tasks`. `references`: by the task's id. `more`: metrics beside those of this package.

    Raises DataError for a trajectory of an unknown task, of another policy, sampled under other conditions, or beyond
    `attempts`.
    """
    by_task = attempts_by_task(
        scored, tasks, policy=policy, conditions=conditions, annotator=annotator, attempts=attempts
    )
    measured = {**METRICS, **(more or {})}
    fractions = np.array(
        [_task_fractions(measured, by_task[task.id], task, references[task.id], attempts) for task in tasks]
    )
    fractions = fractions.reshape(len(tasks), len(measured), 2)
    verdicts, grounded = (fractions[:, list(measured).index(METRIC_OF[name])] for name in ("solved", "grounded"))
    judged = verdicts[:, 1] > 0
    verdicts[judged] /= verdicts[judged, 1:]  # a task counts once, however many of its attempts have a verdict
    group_of = {task.id: task.group for task in tasks}
    named = {task.id: references[task.id].cluster for task in tasks}
    row_of = {task.id: row for row, task in enumerate(tasks)}
    metrics = {}
    for group, members in group_tasks(group_of).items():
        part = fractions[[row_of[task] for task in members]]
        estimates = bootstrap_ratios(
            part[:, :, 0].T,
            part[:, :, 1].T,
            resamples=resamples,
            confidence=confidence,
            rng=rng,
            clusters=[cluster_of(task, named[task]) for task in members],
        )
        metrics[group] = dict(zip(measured, estimates, strict=True))
    return Evaluation(
        name=name,
        policy=policy,
        conditions=conditions,
        annotator=annotator,
        attempts=attempts,
        split=split,
        tasks_hash=tasks_hash(tasks, references),
        confidence=confidence,
        broken=broken_share([record.trajectory for record in scored], len(tasks) * attempts),
        solved={task.id: float(verdicts[row, 0]) if judged[row] else None for row, task in enumerate(tasks)},
        grounded={task.id: float(grounded[row, 0]) for row, task in enumerate(tasks)},
        group_of=group_of,
        cluster_of={task: cluster for task, cluster in named.items() if cluster},
        measures={key: Measure(describes=each.describes, is_rate=each.is_rate) for key, each in measured.items()},
        metrics=metrics,
    )


def broken_share(trajectories: Sequence[Trajectory], expected: int) -> float:
    """Share of `expected` attempts that are missing, or that a fault cut short."""
    ended = sum(trajectory.stop_reason.terminated for trajectory in trajectories)
    return (expected - ended) / expected if expected else 0.0


def primary_measure(evaluations: Sequence[Evaluation]) -> Primary:
    """What policies that were measured on the same tasks are compared on: verdicts where enough tasks have one."""
    if not evaluations:
        return "solved"
    known = set.intersection(*(set(each.values("solved")) for each in evaluations))
    is_enough = len(known) >= min(ENOUGH, max(len(evaluations[0].solved) / 2, 1))
    return "solved" if is_enough else "grounded"


def refuse_unless_measurable(tasks: Sequence[Task], references: Mapping[str, Reference], *, where: str) -> None:
    """Raise DataError for tasks that no policy could be measured on; call it before anything is sampled."""
    ids = Counter(task.id for task in tasks)
    taken = {*ROLL_UPS, ALL}
    found = None
    if not tasks:
        found, fix = "holds no tasks", "raise world.test_tasks, or world.dev_tasks, in params.yaml"
    elif repeated := [id for id, count in ids.items() if count > 1]:
        found, fix = f"holds task {repeated[0]} {ids[repeated[0]]} times", "give every task an id of its own"
    elif misnamed := [task for task in tasks if task.group in taken]:
        found = f"task {misnamed[0].id} is of the group {misnamed[0].group!r}, which is the name of a total"
        fix = f"name the group otherwise: {', '.join(sorted(taken))} are taken"
    elif unknown := [task.id for task in tasks if task.id not in references]:
        found = f"{len(unknown)} of {len(tasks)} tasks have no reference, task {unknown[0]} first"
        fix = "run `dvc repro prepare`, which writes both"
    if found:
        raise DataError(found, where=where, fix=fix)


def attempts_by_task(
    scored: Sequence[ScoredTrajectory],
    tasks: Sequence[Task],
    *,
    policy: Revision,
    conditions: Conditions,
    annotator: Revision,
    attempts: int,
) -> dict[str, list[ScoredTrajectory]]:
    """Task id → its attempts, in their order. Raises DataError as `evaluate` does."""
    by_task: dict[str, dict[int, ScoredTrajectory]] = {task.id: {} for task in tasks}
    again = "run `dvc repro evaluate`: its inputs changed since these trajectories were made"
    for record in scored:
        trajectory = record.trajectory
        where = f"trajectory {trajectory.id} of task {trajectory.task_id}"
        found = None
        if trajectory.task_id not in by_task:
            found = "is of a task outside the evaluated set"
        elif trajectory.policy != policy:
            found = f"was made by {trajectory.policy}, not {policy}"
        elif trajectory.conditions is None:
            found = "was not sampled here"
        elif differences := trajectory.conditions.differences(conditions):
            found = f"was made under other conditions: {'; '.join(differences)}"
        elif record.annotator != annotator:
            found = f"was judged by {record.annotator}, not {annotator}"
        elif len(trajectory.steps) > conditions.sampling.max_calls:
            found = f"holds {len(trajectory.steps)} actions against max_calls {conditions.sampling.max_calls}"
        elif trajectory.attempt >= attempts:
            found = f"is attempt {trajectory.attempt} of {attempts}, counted from 0"
        elif trajectory.attempt in by_task[trajectory.task_id]:
            found = f"repeats attempt {trajectory.attempt}"
        if found:
            raise DataError(found, where=where, fix=again)
        by_task[trajectory.task_id][trajectory.attempt] = record
    return {task: [made[key] for key in sorted(made)] for task, made in by_task.items()}


def _task_fractions(
    metrics: Mapping[str, Metric], scored: Sequence[ScoredTrajectory], task: Task, reference: Reference, expected: int
) -> list[tuple[float, float]]:
    """(numerator, denominator) of each metric, averaged over `expected` attempts."""
    found = []
    for name, metric in metrics.items():
        parts = [_fraction(name, metric, record, task, reference) for record in scored]
        if isinstance(metric, CountsMissing):
            parts += [metric.missing(reference)] * (expected - len(scored))
        found.append((sum(part[0] for part in parts) / expected, sum(part[1] for part in parts) / expected))
    return found


def _fraction(
    name: str, metric: Metric, record: ScoredTrajectory, task: Task, reference: Reference
) -> tuple[float, float]:
    """Raises StepToolError if the metric, which may be foreign code, raises or returns no such fraction."""
    try:
        numerator, denominator = metric.fraction(record, task, reference)
        is_fraction = math.isfinite(numerator) and math.isfinite(denominator) and denominator >= 0
        problem = f"gave {numerator!r:.40} of {denominator!r:.40}"
        if is_fraction and (not metric.is_rate or 0 <= numerator <= denominator * (1 + ROUNDING)):
            return float(numerator), float(denominator)
    except Exception as fault:  # noqa: BLE001 - whatever it raises
        problem = f"raised {describe(fault)}"
    raise StepToolError(
        f"metric {name} {problem}",
        where=f"trajectory {record.trajectory.id} of task {task.id}",
        fix="let its `fraction` return two finite numbers, for a rate the first between 0 and the second",
    )

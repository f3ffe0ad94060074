"""Scores a file of trajectories with any annotator. An error names the file, the trajectory and the task."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from steptool.annotators.base import Annotator, LooksAhead
from steptool.core.errors import DataError, StepToolError, describe
from steptool.core.types import Reference, Revision, ScoredTrajectory, Task, Trajectory
from steptool.system.progress import progress

MEND = "mend the annotator, then run the same command again"


def annotate_all(
    annotator: Annotator,
    revision: Revision,
    trajectories: Sequence[Trajectory],
    tasks: Iterable[Task],
    references: Mapping[str, Reference],
    *,
    source: Path,
    what: str,
    concurrency: int,
) -> list[ScoredTrajectory]:
    """Score `trajectories` of `tasks`, in their order, at most `concurrency` of them at the same time.

    `references` are keyed by task id, `source` is the file that errors name, `what` is the label of the progress bar.
    Raises DataError if a trajectory's task is not among `tasks`, StepToolError if the annotator raises or does not give
    one judgement for each step.
    """
    by_id = {task.id: task for task in tasks}
    for trajectory in trajectories:
        if trajectory.task_id not in by_id or trajectory.task_id not in references:
            raise DataError(
                f"its task is not among the {len(by_id)} tasks of this stage",
                where=_place(source, trajectory),
                fix="run `dvc repro`, which samples again with the present tasks",
            )

    async def score_all() -> list[ScoredTrajectory]:
        free = asyncio.Semaphore(concurrency)

        async def score(trajectory: Trajectory) -> ScoredTrajectory:
            async with free:
                task = by_id[trajectory.task_id]
                scored = await _score(annotator, revision, trajectory, task, references[task.id], source)
            advance(1)
            return scored

        return await asyncio.gather(*map(score, trajectories))

    if isinstance(annotator, LooksAhead):
        _look_ahead(annotator, revision, trajectories, source)
    with progress(what, len(trajectories), "trajectories") as advance:
        return asyncio.run(score_all())


def _look_ahead(annotator: LooksAhead, revision: Revision, trajectories: Sequence[Trajectory], source: Path) -> None:
    try:
        annotator.look_ahead(trajectories)
    except (KeyboardInterrupt, StepToolError):
        raise
    except BaseException as fault:  # as below
        raise StepToolError(f"annotator {revision} failed: {describe(fault)}", where=str(source), fix=MEND) from fault


async def _score(
    annotator: Annotator, revision: Revision, trajectory: Trajectory, task: Task, reference: Reference, source: Path
) -> ScoredTrajectory:
    where = _place(source, trajectory)
    try:
        judgements = await annotator.annotate(trajectory, task, reference)
        return ScoredTrajectory(trajectory=trajectory, judgements=tuple(judgements), annotator=revision)
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise
    except StepToolError as error:
        raise type(error)(f"{error.where}: {error.found}", where=where, fix=error.fix) from error
    except ValidationError as error:
        said = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
        raise StepToolError(
            f"annotator {revision} gave no judgements of its steps: {said}",
            where=where,
            fix="let its `annotate` return one Judgement a step: success and contribution, of the last solved",
        ) from error
    except BaseException as fault:  # foreign code: its SystemExit would end this process with status 0
        raise StepToolError(
            f"annotator {revision} failed: {describe(fault)}",
            where=where,
            fix=MEND,
        ) from fault


def _place(source: Path, trajectory: Trajectory) -> str:
    return f"{source}: trajectory {trajectory.id} of task {trajectory.task_id}"

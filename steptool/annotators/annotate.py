"""Scores a file of trajectories with any annotator. An error names the file, the trajectory and the task."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from steptool.annotators.base import Annotator, LooksAhead
from steptool.config.plugins import Use
from steptool.core.errors import DataError, StepToolError, describe
from steptool.core.plugins import revision_of
from steptool.core.types import Reference, Revision, ScoredTrajectory, Task, Trajectory
from steptool.system.progress import Advance, progress
from steptool.worlds.base import Ends

BLOCK = 4096
"""Trajectories that are scored before the next are read, and as many more as the last task of them has; some 100 MB."""

MEND = "mend the annotator, then run the same command again"


@contextmanager
def opened(used: Use) -> Iterator[tuple[Annotator, Revision]]:
    """The annotator of the settings, and its revision. What it started, such as a client, ends with the block."""
    annotator: Annotator = used.build()
    try:
        yield annotator, revision_of(annotator, used.config)
    finally:
        if isinstance(annotator, Ends):
            annotator.end()


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
    """`annotate_each`, as a list: all of them are one block."""
    with progress(what, len(trajectories), "trajectories") as advance:
        return list(
            annotate_each(
                annotator,
                revision,
                trajectories,
                tasks,
                references,
                source=source,
                concurrency=concurrency,
                advance=advance,
                block=len(trajectories),
            )
        )


def annotate_each(
    annotator: Annotator,
    revision: Revision,
    trajectories: Iterable[Trajectory],
    tasks: Iterable[Task],
    references: Mapping[str, Reference],
    *,
    source: Path,
    concurrency: int,
    advance: Advance,
    block: int = BLOCK,
) -> Iterator[ScoredTrajectory]:
    """Score `trajectories` of `tasks`, in their order, at most `concurrency` of them at the same time and a block of
    them in memory: `block`, and the rest of those at the last task, which an annotator may compare with each other.

    `references` are keyed by task id, `source` is the file that errors name, `advance` is told how many are done.
    Raises DataError if a trajectory's task is not among `tasks`, before its block is scored, StepToolError if the
    annotator raises or does not give one judgement for each step.
    """
    by_id = {task.id: task for task in tasks}

    def check(trajectory: Trajectory) -> None:
        if trajectory.task_id not in by_id or trajectory.task_id not in references:
            raise DataError(
                f"its task is not among the {len(by_id)} tasks of this stage",
                where=_place(source, trajectory),
                fix="run `dvc repro`, which samples again with the present tasks",
            )

    async def score_all(part: Sequence[Trajectory]) -> list[ScoredTrajectory]:
        free = asyncio.Semaphore(concurrency)

        async def score(trajectory: Trajectory) -> ScoredTrajectory:
            async with free:
                task = by_id[trajectory.task_id]
                scored = await _score(annotator, revision, trajectory, task, references[task.id], source)
            advance(1)
            return scored

        return await asyncio.gather(*map(score, part))

    with asyncio.Runner() as runner:  # one event loop for all blocks: an annotator may hold connections of it
        for part in _blocks(trajectories, block):
            for trajectory in part:
                check(trajectory)
            if isinstance(annotator, LooksAhead):
                _look_ahead(annotator, revision, part, source)
            yield from runner.run(score_all(part))


def _blocks(trajectories: Iterable[Trajectory], size: int) -> Iterator[list[Trajectory]]:
    """Of `size` at least, but for the last. A block ends where a task ends: those at one task stand together, as
    `sample` writes them."""
    block: list[Trajectory] = []
    for each in trajectories:
        if len(block) >= size and each.task_id != block[-1].task_id:
            yield block
            block = []
        block.append(each)
    if block:
        yield block


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

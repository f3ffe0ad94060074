"""Many searches at once, and what is done about those that a fault ends.

An attempt that a fault of the engine or the world ended says nothing of the policy: it is made again, with the same
seed, up to TRIES times, and what is lost then is counted. More lost attempts than the caller allows are an error.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from steptool.core.errors import ModelError, StepToolError
from steptool.core.types import StopReason, Trajectory
from steptool.rollouts.loop import run
from steptool.rollouts.sampled import NOT_FINITE
from steptool.system.progress import progress

TRIES = 3
"""How often an attempt is made that the engine or the world breaks, the first time included."""

logger = logging.getLogger(__name__)

Job = Callable[[], Awaitable[Sequence[Trajectory]]]
"""A search that has not begun."""


def tried(jobs: Sequence[Job], concurrency: int, *, what: str) -> list[Sequence[Trajectory]]:
    """What all searches found, in the order of the jobs; those whose answer a fault ended are made again, up to TRIES
    times in all."""
    made: dict[int, Sequence[Trajectory]] = {}
    wanted = list(range(len(jobs)))
    for tries in range(TRIES):
        with progress(f"{what}, try {tries + 1}" if tries else what, len(wanted), "trajectories") as advance:
            again = run_searches([jobs[index] for index in wanted], concurrency, lambda: advance(1))
            made |= zip(wanted, run(again), strict=True)
        wanted = [index for index in wanted if made[index][0].stop_reason.broken]
        if not wanted:
            break
    return [made[index] for index in range(len(jobs))]


async def run_searches(
    jobs: Sequence[Job], concurrency: int, on_done: Callable[[], None] = lambda: None
) -> list[Sequence[Trajectory]]:
    """Run all searches, at most `concurrency` at once; what they found in the order of the jobs.

    `on_done` is called as each ends. An exception of a search (a defect: it raises none) cancels the others.
    """
    slots = asyncio.Semaphore(concurrency)

    async def search(job: Job) -> Sequence[Trajectory]:
        async with slots:
            found = await job()
        on_done()
        return found

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(search(job)) for job in jobs]
    return [task.result() for task in running]


def warn_of_agents(trajectories: Sequence[Trajectory]) -> None:
    """Say in how many attempts an agent failed: they count as unsolved, though the policy may be blameless."""
    failed = Counter(t.error for t in trajectories if t.error and not t.stop_reason.broken)
    if failed:
        (most, count), total = failed.most_common(1)[0], failed.total()
        logger.warning(
            "in %d of %d attempts the agent failed, in %d of them so: %s", total, len(trajectories), count, most
        )


def refuse_broken(
    trajectories: Sequence[Trajectory], most: float, *, engine: str = "`steptool doctor` checks the machine"
) -> None:
    """Raise ModelError or StepToolError, with the fault that ended most of them, where faults of the engine or the
    world ended more than the share `most` of the attempts. `engine`: where to look for faults of the engine.
    """
    broken = [t for t in trajectories if t.stop_reason.broken]
    if not broken or len(broken) / len(trajectories) <= most:
        return
    (reason, fault), count = Counter((t.stop_reason, t.error or "") for t in broken).most_common(1)[0]
    found = (
        f"{len(broken)} of {len(trajectories)} attempts ended in a fault of the engine or the world, "
        f"at most {most:.1%} may; {count} of them in {reason.value}: {fault}"
    )
    where = f"policy {broken[0].policy.name}, each attempt tried {TRIES} times"
    if fault.endswith(NOT_FINITE):
        fix = f"make {broken[0].policy.name} again, its weights compute NaN; or set model.dtype: float32 in params.yaml"
        raise ModelError(found, where=where, fix=fix)
    first = next(t.task_id for t in broken if (t.stop_reason, t.error or "") == (reason, fault))
    cause = engine if reason is StopReason.engine_error else f"first at task {first}"
    raise StepToolError(
        found, where=where, fix=f"mend the cause ({cause}), then run the same command again; nothing was written"
    )

"""Makes the attempts of the audit in the live world, and has them scored as sampled ones are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steptool.annotators.annotate import annotate_all
from steptool.annotators.base import Annotator
from steptool.checks.audit.attacks import Plan, last_action, plans, stop_of
from steptool.core.types import (
    Action,
    Observation,
    Outcome,
    Reference,
    Revision,
    ScoredTrajectory,
    Step,
    Task,
    Trajectory,
)
from steptool.rollouts.guard import GuardedSession
from steptool.worlds.base import World

MOST_CHARACTERS = 4000
"""Of a reply."""
HINT = Observation(text="not a call", error="parse_error")
AUDIT = Revision(name="audit", revision="0")


@dataclass(frozen=True)
class Made:
    """An attempt of the audit, scored."""

    name: str
    against: str
    scored: ScoredTrajectory


@dataclass(frozen=True)
class Judges:
    """Who scores the attempts, and what is known to them."""

    annotator: Annotator
    revision: Revision
    verdicts: bool
    """Whether the world's verdict and the relevant tools are known."""


async def make(world: World, task: Task, plan: Plan, timeout_s: float) -> Trajectory:
    """Carry `plan` out in a fresh session. Raises what a broken world raises."""
    session = GuardedSession(world.open(task, 0), timeout_s=timeout_s, most=MOST_CHARACTERS)
    try:
        steps = [await _carried_out(session, action) for action in plan.actions]
    except BaseException:
        await session.leave()
        raise
    answer = plan.answer(steps)
    outcome = await session.close(answer)
    return Trajectory.create(
        task_id=task.id,
        steps=(*steps, Step(action=last_action(answer))),
        stop_reason=stop_of(answer),
        answer=answer,
        outcome=outcome,
        policy=AUDIT,
        conditions=None,
        seed=0,
    )


async def _carried_out(session: GuardedSession, action: Action) -> Step:
    if action.unreadable is not None:
        return Step(action=action, observations=(HINT,))
    if action.message is not None:
        reply = await session.say(action.message)
        return Step(action=action, reply=reply if reply is not None else "")
    return Step(action=action, observations=tuple([await session.call(call) for call in action.calls]))


async def made_of(
    world: World, task: Task, honest: Trajectory, budget: int, timeout_s: float
) -> list[tuple[Plan, Trajectory]]:
    """The honest attempt at a task made again, and every attack on it."""
    return [(plan, await make(world, task, plan, timeout_s)) for plan in plans(task, honest, budget)]


def scored(
    made: Sequence[tuple[Plan, Trajectory]], tasks: Sequence[Task], references: dict[str, Reference], judges: Judges
) -> list[Made]:
    """What `judges` say of the attempts. Raises what `annotate_all` raises."""
    attempts = [attempt for _, attempt in made]
    known = references
    if not judges.verdicts:
        attempts = [Trajectory.create(**dict(attempt) | {"outcome": Outcome()}) for attempt in attempts]
        known = {task.id: Reference(task_id=task.id) for task in tasks}
    found = annotate_all(
        judges.annotator,
        judges.revision,
        attempts,
        tasks,
        known,
        source=Path("audit"),
        what="score the attempts of the audit",
        concurrency=128,
    )
    return [Made(plan.name, plan.against, each) for (plan, _), each in zip(made, found, strict=True)]

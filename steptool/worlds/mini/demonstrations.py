"""Traces such as a team has of its agent: mostly good, a set share of them ending unsolved by bad habits.

The habits sit in recognisable contexts, so that a policy trained on the traces picks them up there:

    gives_up     Finish give_up at the first error, first of all where a service was unavailable or busy
    first_only   in a task with two parts, looks at the first and answers from it
    careless     answers with a wrong field, or stops one lookup early
    repeats      makes a lookup twice; the answer is right

Every call is really made, so observations are the world's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from steptool.core.errors import InputError
from steptool.core.types import Revision, Sampling, Step, StopReason, ToolCall, Trajectory
from steptool.worlds.mini.plans import Case, interrupted
from steptool.worlds.mini.world import MiniWorld, finish

EXPERT = Revision(name="expert", revision="1")
SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_calls=8, max_step_tokens=64, max_tokens=1024, strategy="expert")
GIVES_UP_SHARE, FIRST_ONLY_SHARE = 0.76, 0.14
"""Of the flawed traces; the rest are careless."""
REPEATS_SHARE = 0.04
"""Of all traces."""


def expert_demonstrations(world: MiniWorld, count: int, flawed: float, seed: int) -> list[Trajectory]:
    """`count` traces of distinct training tasks, of which round(flawed * count) end unsolved.

    Raises InputError where the world has fewer training tasks than `count`.
    """
    cases = world.cases("train")
    if count > len(cases):
        raise InputError(
            f"{count} demonstrations asked for, but there are {len(cases)} training tasks",
            where="params.yaml",
            fix="lower demonstrations.count or raise world.train_tasks",
        )
    rng = Random(f"mini-demonstrations:{seed}")
    chosen = cases[:count]
    habits = _habits(world, chosen, round(flawed * count), rng)
    return [_trace(world, case, habits.get(case.task.id), seed) for case in chosen]


Habit = Callable[[MiniWorld, Case], list[Step]]


def _habits(world: MiniWorld, cases: list[Case], flawed: int, rng: Random) -> dict[str, Habit]:
    """Which task is done by which habit. Exactly `flawed` of them end unsolved."""
    shuffled = rng.sample(cases, len(cases))
    habits: dict[str, Habit] = {}

    def assign(habit: Habit, quota: int, candidates: list[Case]) -> None:
        for case in candidates:
            if quota > 0 and case.task.id not in habits and not _solves(world, case, habit):
                habits[case.task.id] = habit
                quota -= 1

    passing = ("unavailable", "rate_limit")
    by_error = sorted(shuffled, key=lambda case: not (case.hiccup and case.hiccup.kind in passing))
    assign(_gives_up, round(GIVES_UP_SHARE * flawed), by_error)
    two_parts = [case for case in shuffled if case.shortcut and not case.hiccup]
    assign(_first_only, round(FIRST_ONLY_SHARE * flawed), two_parts)
    assign(_careless, flawed - len(habits), shuffled)
    rest = [case for case in shuffled if case.task.id not in habits and len(case.solution()) < SAMPLING.max_calls - 1]
    return habits | {case.task.id: _repeats for case in rest[: round(REPEATS_SHARE * len(cases))]}


def _trace(world: MiniWorld, case: Case, habit: Habit | None, seed: int) -> Trajectory:
    steps = (habit or _flawless)(world, case)
    answer = _answer(steps)
    return Trajectory.create(
        task_id=case.task.id,
        subset=case.task.subset,
        steps=tuple(steps),
        stop_reason=StopReason.gave_up if answer is None else StopReason.finished,
        answer=answer,
        policy=EXPERT,
        world=world.revision,
        sampling=SAMPLING,
        seed=seed,
    )


def _answer(steps: list[Step]) -> str | None:
    last = steps[-1].call
    return last.arguments.get("answer") if last else None


def _solves(world: MiniWorld, case: Case, habit: Habit) -> bool:
    return world.reset(case.task, 0).verify(_answer(habit(world, case))) == 1.0


def _run(world: MiniWorld, case: Case, calls: list[ToolCall]) -> list[Step]:
    session = world.reset(case.task, 0)
    return [Step(call=call, observation=session.reply(call.name, call.arguments)) for call in calls]


def _flawless(world: MiniWorld, case: Case) -> list[Step]:
    return [*_run(world, case, case.solution()), Step(call=finish(case.answer))]


def _gives_up(world: MiniWorld, case: Case) -> list[Step]:
    steps = _run(world, case, case.solution())
    for index, step in enumerate(steps):
        if step.observation and step.observation.error:
            return [*steps[: index + 1], Step(call=finish(None))]
    return [*steps, Step(call=finish(case.answer))]


def _first_only(world: MiniWorld, case: Case) -> list[Step]:
    if case.shortcut is None:
        return _flawless(world, case)
    calls = interrupted(case.shortcut.calls, case.hiccup)
    return [*_run(world, case, calls), Step(call=finish(case.shortcut.answer))]


def _careless(world: MiniWorld, case: Case) -> list[Step]:
    """Answer with the first wrong value of the last reply, one lookup early where there is more than one."""
    steps = _run(world, case, case.solution())
    session = world.reset(case.task, 0)
    for kept in (steps[:-1], steps):
        reply = kept[-1].observation if kept else None
        if reply is None or reply.error:
            continue
        wrong = [value for value in _values(json.loads(reply.text)) if session.verify(value) == 0.0]
        if wrong:
            return [*kept, Step(call=finish(wrong[0]))]
    return [*steps[:1], Step(call=finish("unknown"))]


def _values(reply: object) -> list[str]:
    if isinstance(reply, list):
        return [value for row in reply for value in _values(row)]
    return [str(value) for value in reply.values()] if isinstance(reply, dict) else []


def _repeats(world: MiniWorld, case: Case) -> list[Step]:
    calls = case.solution()
    return [*_run(world, case, [*calls, calls[-1]]), Step(call=finish(case.answer))]

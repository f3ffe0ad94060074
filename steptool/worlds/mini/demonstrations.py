"""Traces like those of a real agent: most are good, and a given share ends unsolved because of bad habits.

The habits sit in recognisable contexts, so that a policy trained on the traces picks them up there:

    gives_up     Finish give_up at the first error, first of all where a service was unavailable or busy
    first_only   in a task with two parts, looks at the first and answers from it
    careless     answers with a wrong field, or stops one lookup early
    repeats      makes a lookup twice; the answer is right

Every call is really made, so the observations are real replies of the world.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from steptool.core.errors import InputError
from steptool.core.types import (
    Action,
    Revision,
    Step,
    StopReason,
    ToolCall,
    Trajectory,
    content_hash,
)
from steptool.worlds.mini.plans import PASSING, Case, finish, interrupted
from steptool.worlds.mini.session import CaseSession

GIVES_UP_SHARE, FIRST_ONLY_SHARE = 0.76, 0.14
"""Of the flawed traces; the rest are careless."""
REPEATS_SHARE = 0.04
"""Of all traces."""

SessionOf = Callable[[Case], CaseSession]
Habit = Callable[[SessionOf, Case], list[Step]]


def expert_demonstrations(
    cases: list[Case], session_of: SessionOf, count: int, flawed: float, seed: int, most_calls: int
) -> list[Trajectory]:
    """Traces of the first `count` of `cases`, each of at most `most_calls` calls, of which round(flawed * count) end
    unsolved.

    `session_of` gives a fresh session of a case.
    Raises InputError where there are fewer cases than `count`.
    """
    if count > len(cases):
        raise InputError(
            f"demonstrations.count: {count} is above world.train_tasks: {len(cases)}, and each shows another task",
            where="params.yaml",
            fix="lower demonstrations.count or raise world.train_tasks",
        )
    rng = Random(f"mini-demonstrations:{seed}")
    chosen = cases[:count]
    habits = _habits(session_of, chosen, round(flawed * count), most_calls, rng)
    done = [habits.get(case.task.id, _flawless)(session_of, case) for case in chosen]
    expert = Revision(name="expert", revision=content_hash([[step.model_dump() for step in steps] for steps in done]))
    return [_trace(session_of, case, steps, expert, seed) for case, steps in zip(chosen, done, strict=True)]


def _habits(session_of: SessionOf, cases: list[Case], flawed: int, most_calls: int, rng: Random) -> dict[str, Habit]:
    """The habit of each trace. Exactly `flawed` of them end unsolved."""
    shuffled = rng.sample(cases, len(cases))
    habits: dict[str, Habit] = {}

    def assign(habit: Habit, quota: int, candidates: list[Case]) -> None:
        for case in candidates:
            if quota > 0 and case.task.id not in habits and not _solves(session_of, case, habit):
                habits[case.task.id] = habit
                quota -= 1

    by_error = sorted(shuffled, key=lambda case: not (case.hiccup and case.hiccup.kind in PASSING))
    assign(_gives_up, round(GIVES_UP_SHARE * flawed), by_error)
    two_parts = [case for case in shuffled if case.shortcut and not case.hiccup]
    assign(_first_only, round(FIRST_ONLY_SHARE * flawed), two_parts)
    assign(_careless, flawed - len(habits), shuffled)
    rest = [case for case in shuffled if case.task.id not in habits and len(case.solution()) < most_calls - 1]
    return habits | {case.task.id: _repeats for case in rest[: round(REPEATS_SHARE * len(cases))]}


def _trace(session_of: SessionOf, case: Case, steps: list[Step], expert: Revision, seed: int) -> Trajectory:
    answer = _answer(steps)
    return Trajectory.create(
        task_id=case.task.id,
        steps=tuple(steps),
        stop_reason=StopReason.gave_up if answer is None else StopReason.finished,
        answer=answer,
        outcome=session_of(case).outcome(answer),
        policy=expert,
        conditions=None,
        seed=seed,
    )


def _answer(steps: list[Step]) -> str | None:
    (last,) = steps[-1].action.calls
    return last.arguments.get("answer")


def _solves(session_of: SessionOf, case: Case, habit: Habit) -> bool:
    return session_of(case).outcome(_answer(habit(session_of, case))).solved == 1.0


def _run(session_of: SessionOf, case: Case, calls: list[ToolCall]) -> list[Step]:
    session = session_of(case)
    return [Step(action=Action(calls=(call,)), observations=(session.reply(call),)) for call in calls]


def _end(answer: str | None) -> Step:
    return Step(action=Action(calls=(finish(answer),)))


def _flawless(session_of: SessionOf, case: Case) -> list[Step]:
    return [*_run(session_of, case, case.solution()), _end(case.answer)]


def _gives_up(session_of: SessionOf, case: Case) -> list[Step]:
    steps = _run(session_of, case, case.solution())
    for index, step in enumerate(steps):
        if step.observations[0].error:
            return [*steps[: index + 1], _end(None)]
    return [*steps, _end(case.answer)]


def _first_only(session_of: SessionOf, case: Case) -> list[Step]:
    if case.shortcut is None:
        return _flawless(session_of, case)
    calls = interrupted(case.shortcut.calls, case.hiccup)
    return [*_run(session_of, case, calls), _end(case.shortcut.answer)]


def _careless(session_of: SessionOf, case: Case) -> list[Step]:
    """Answer with the first wrong value of the last reply, one lookup early where there is more than one."""
    steps = _run(session_of, case, case.solution())
    session = session_of(case)
    for kept in (steps[:-1], steps):
        if not kept or kept[-1].observations[0].error:
            continue
        values = _values(json.loads(kept[-1].observations[0].text))
        wrong = [value for value in values if session.outcome(value).solved == 0.0]
        if wrong:
            return [*kept, _end(wrong[0])]
    return [*steps[:1], _end("unknown")]


def _values(reply: object) -> list[str]:
    if isinstance(reply, list):
        return [value for row in reply for value in _values(row)]
    return [str(value) for value in reply.values()] if isinstance(reply, dict) else []


def _repeats(session_of: SessionOf, case: Case) -> list[Step]:
    calls = case.solution()
    return [*_run(session_of, case, [*calls, calls[-1]]), _end(case.answer)]

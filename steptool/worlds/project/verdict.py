"""What an attempt comes to, by the checks of its task, while the state that its calls made is alive.

    no check, or only a judge can tell      unknown
    no answer (it gave up, or ran out)      not solved
    each check holds                        solved; a function may say how far, and the least of them counts
    one check does not                      not solved, whatever the others say
    one of them is for a judge              unknown, where the others hold

Whether an attempt ended is for its answer to say: where only the state is checked, `Finish` with any answer ends it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from steptool.core.errors import WorldError, printable
from steptool.core.types import AnswerCheck, Outcome, Task, ToolCall
from steptool.worlds.answers import NO_ANSWER, SHOWN, outcome_of
from steptool.worlds.project.checks import Check, StateCheck
from steptool.worlds.project.toolbox import PASSES, Called, Connection, Judges

UNKNOWN = Outcome(evidence="only a judge can tell")


async def verdict(
    checks: Sequence[Check],
    answer: str | None,
    task: Task,
    calls: Sequence[Called],
    *,
    connection: Connection,
    judges: Judges | None,
) -> Outcome:
    """`calls` are those of the attempt, `connection` is the one that they were made through, `judges` runs the check
    functions. The first check that does not hold decides, and those behind it are not asked.

    Raises WorldError where a check itself fails.
    """
    if all(isinstance(check, AnswerCheck) and check.kind == "judge" for check in checks):
        return UNKNOWN
    if answer is None:
        return NO_ANSWER
    outcomes: list[Outcome] = []
    for check in checks:
        if isinstance(check, AnswerCheck):
            outcomes.append(outcome_of(check, answer, task.query))
        elif isinstance(check, StateCheck):
            outcomes.append(await _of_state(check, task, connection))
        else:
            outcomes.append(await _of_function(check, answer, task, calls, judges))
        if outcomes[-1].solved == 0:
            return outcomes[-1]
    known = [each.solved for each in outcomes if each.solved is not None]
    solved = min(known) if len(known) == len(outcomes) else None
    return Outcome(solved=solved, evidence="; ".join(each.evidence for each in outcomes))


async def _of_function(check: str, answer: str, task: Task, calls: Sequence[Called], judges: Judges | None) -> Outcome:
    if judges is None:
        raise WorldError(f"nothing here can run the check {check}", where=f"task {task.id}")
    return Outcome(solved=await judges.judge(check, answer, calls), evidence=f"as {check} says")


async def _of_state(check: StateCheck, task: Task, connection: Connection) -> Outcome:
    seen = await connection.call(ToolCall(name=check.tool, arguments=check.arguments))
    if seen.error is not None and (PASSES.fullmatch(seen.error) or seen.error == "no_recording"):
        found = f"{check.tool}, which tells how the attempt ended, replied with the error {seen.error}"
        raise WorldError(found, where=f"task {task.id}", fix=f"steptool tools try {check.tool}")
    if seen.error is not None:
        return Outcome(solved=0.0, evidence=f"{check.tool} replied with the error {seen.error}")
    values = check.found_in(seen.text)
    solved = 1.0 if check.holds(values) else 0.0
    shown = _shown(values[0] if len(values) == 1 else values)
    return Outcome(
        solved=solved, evidence=f"{check.path} of {check.tool}: expected {_shown(check.expected)}, is {shown}"
    )


def _shown(value: object) -> str:
    text = printable(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."

"""What is wrong with a file of tasks, all of it at once, and what is doubtful in it.

errors      a line that cannot be read, an id given twice, a tool or a function that is not there, one question on
            two sides of the split, a task that no policy can be asked, a check that fails by itself
warnings    one question asked twice, an answer that stands in its query or that most tasks share, a check that holds
            before anything was done, a small group, tasks without a check
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from steptool.core.errors import DataError, StepToolError, WorldError
from steptool.core.storage import read_lines
from steptool.core.types import AnswerCheck, Task
from steptool.rollouts.guard import GuardedSession
from steptool.worlds.base import SPLITS, Split
from steptool.worlds.checks import problems_of
from steptool.worlds.project.checks import StateCheck
from steptool.worlds.project.split import same_questions
from steptool.worlds.project.tasks import MISSING, WRITE_AGAIN, TaskLine, read_line
from steptool.worlds.project.world import ProjectSettings, ProjectWorld
from steptool.worlds.prose.names import says
from steptool.worlds.prose.numbers import numbers_in

MOST_ERRORS = 50
"""Lines that are named, beside those that cannot be read."""
MAX_LINES = 1_000_000_000
FEW = 5
"""Test tasks of a group, below which its row of a table says little."""
MOST_STATES = 20
"""State checks that are tried: each calls a tool."""
NO_ATTEMPT = "I do not know."
"""What the attempt answers that does nothing."""
COMMON = 0.5
"""Share of the test tasks above which one answer to all is worth a warning."""


@dataclass(frozen=True)
class Finding:
    kind: Literal["error", "warning"]
    found: str
    where: tuple[str, ...] = ()
    fix: str = ""


@dataclass(frozen=True)
class Read:
    """What could be read. `world` is None where errors leave none."""

    lines: Mapping[str, TaskLine]
    """By where they stand."""
    world: ProjectWorld | None
    errors: Sequence[Finding]

    def sides(self) -> dict[str, Split]:
        """The split of each task, by where it stands."""
        if self.world is None:
            return {}
        of_id = {task.id: split for split in SPLITS for task in self.world.tasks(split)}
        return {where: of_id[line.id] for where, line in self.lines.items() if line.id in of_id}


def read(config: ProjectSettings, make: Callable[[Any], ProjectWorld]) -> Read:
    """The tasks that `config` names and the world that `make` makes of them, without the lines that are wrong.

    Each of these is an error of what is returned; the file is read on behind it. Raises DataError for a file that
    cannot be read at all.
    """
    path = Path(config.tasks)
    texts = list(read_lines(path, missing=MISSING, broken=WRITE_AGAIN))
    lines: dict[str, TaskLine] = {}
    errors: list[Finding] = []
    for number, text in enumerate(texts, start=1):
        try:
            if text.strip():
                lines[f"{path}:{number}"] = read_line(text, path, number)
        except DataError as error:
            errors.append(_finding(error, error.where))
    world = None
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        while lines and len(errors) < MOST_ERRORS:
            kept = (text if f"{path}:{number}" in lines else "\n" for number, text in enumerate(texts, start=1))
            copy.write_text("".join(kept))
            try:
                world = make(config.model_copy(update={"tasks": str(copy)}))
                break
            except StepToolError as error:
                where = (error.where or "").replace(str(copy), str(path))
                errors.append(_finding(error, where, str(copy), str(path)))
                if lines.pop(where, None) is None:  # what is wrong is no line
                    break
    return Read(lines, world, sorted(errors, key=lambda error: (_line_of(error), error.found)))


def _line_of(error: Finding) -> int:
    """For the order of errors: those of the whole file come last."""
    number = error.where[0].rpartition(":")[2] if error.where else ""
    return int(number) if number.isdecimal() else MAX_LINES


def _finding(error: StepToolError, where: str | None, written: str = "", meant: str = "") -> Finding:
    found = error.found.replace(written, meant) if written else error.found
    return Finding("error", found, (where,) if where else (), error.fix or "")


def unusable(found: Read) -> Iterator[Finding]:
    """What `prepare` will refuse in tasks that can be read: an empty query, a group, the schema of a tool."""
    if found.world is None:
        return
    tasks = {task.id: task for split in SPLITS for task in found.world.tasks(split)}
    places: dict[str, list[str]] = {}
    for where, line in found.lines.items():
        task = tasks[line.id]
        for problem in problems_of(task, found.world.reference(task)):
            places.setdefault(problem, []).append(where)
    for problem, wrong in list(places.items())[:MOST_ERRORS]:
        yield Finding("error", problem, tuple(wrong), "mend this line, or the tools that it offers")


def doubts(lines: Mapping[str, TaskLine], sides: Mapping[str, Split]) -> Iterator[Finding]:
    """What is doubtful in tasks that can be read."""
    yield from _asked_twice(lines)
    yield from _given_away(lines)
    yield from _numbers_as_texts(lines)
    yield from _shared_answers(lines, sides)
    yield from _small_groups(lines, sides)
    yield from _without_check(lines, sides)


def _asked_twice(lines: Mapping[str, TaskLine]) -> Iterator[Finding]:
    twice = [asked for asked in same_questions(lines) if len(asked) > 1]
    if twice:
        more = sum(map(len, twice)) - len(twice)
        yield Finding(
            "warning",
            f"{_tasks(more)} asking what another one asks: they go to the same side and intervals count them as one "
            "draw, but each counts in a rate",
            tuple(" = ".join(asked) for asked in twice),
            "leave one of each out",
        )


def _given_away(lines: Mapping[str, TaskLine]) -> Iterator[Finding]:
    given = [where for where, line in lines.items() if any(_stands_in(check, line.query) for check in line.checks)]
    if given:
        yield Finding(
            "warning",
            f"{_tasks(len(given))} whose query holds the answer: who picks it out needs no tool",
            tuple(given),
            "ask without it, or check the state at the end, too",
        )


def _stands_in(check: object, query: str) -> bool:
    if not isinstance(check, AnswerCheck) or check.kind == "judge":
        return False
    if check.kind == "number":
        return any(abs(value - check.expected) <= check.tolerance + 1e-9 for value in numbers_in(query))
    items = check.expected if check.kind == "set" else [check.expected]
    return all(says(item, query) for item in items)


def _numbers_as_texts(lines: Mapping[str, TaskLine]) -> Iterator[Finding]:
    texts = [
        where
        for where, line in lines.items()
        for check in line.checks
        if isinstance(check, AnswerCheck)
        and check.kind == "text"
        and re.fullmatch(r"[-+$€£]*\d[\d.,]*\s*(?:[%$€£]|[A-Za-z]{1,4})?", check.expected.strip())
    ]
    if texts:
        found = f"{_tasks(len(texts))} expecting a number as a text: another way of writing it is wrong"
        yield Finding("warning", found, tuple(texts), 'write {"kind": "number", "expected": 12.5, "tolerance": 0.01}')


def _shared_answers(lines: Mapping[str, TaskLine], sides: Mapping[str, Split]) -> Iterator[Finding]:
    expected = {where: answer for where, line in lines.items() if (answer := _answer(line)) is not None}
    tested = {where: answer for where, answer in expected.items() if sides.get(where) == "test"}
    if not tested:
        return
    (answer, count), *_ = Counter(tested.values()).most_common(1)
    if count > COMMON * len(tested) and len(tested) >= FEW:
        found = (
            f"{count} of {_tasks(len(tested), 'test ')} with the answer {answer:.40}: who always says so solves them"
        )
        yield Finding("warning", found, (), "write tasks with other answers")
    trained = {answer for where, answer in expected.items() if sides.get(where) == "train"}
    if known := [where for where, answer in tested.items() if answer in trained]:
        found = f"{len(known)} of {_tasks(len(tested), 'test ')} with an answer that a training task has, too"
        yield Finding("warning", found, tuple(known), "for names and numbers: ask for others, lest they are remembered")


def _answer(line: TaskLine) -> str | None:
    checks = [check for check in line.checks if isinstance(check, AnswerCheck) and check.kind != "judge"]
    if not checks:
        return None
    expected = checks[0].expected
    items = [str(item).casefold() for item in expected] if isinstance(expected, (list, tuple)) else [str(expected)]
    return ", ".join(sorted(items)).casefold()


def _small_groups(lines: Mapping[str, TaskLine], sides: Mapping[str, Split]) -> Iterator[Finding]:
    groups = {line.group for line in lines.values()}
    tested = Counter(lines[where].group for where, split in sides.items() if split == "test")
    small = sorted(group for group in groups if tested[group] < FEW)
    if small and sides:
        listed = tuple(f"{group}: {tested[group]}" for group in small)
        found = (
            f"{len(small)} of {len(groups)} groups have fewer than {FEW} test tasks: their rows of a table say little"
        )
        yield Finding("warning", found, listed, "write more, or join groups")


def _without_check(lines: Mapping[str, TaskLine], sides: Mapping[str, Split]) -> Iterator[Finding]:
    bare = [where for where, line in lines.items() if not line.checks]
    tested = [where for where in bare if sides.get(where) == "test"]
    if bare:
        yield Finding(
            "warning",
            f"{_tasks(len(bare))} without a check, {len(tested)} for test: whether they are solved stays "
            "unknown; `solved` is measured without them, and training has only the rewards of their calls",
            tuple(bare),
            "add a check, or set `annotate` to a judge",
        )


def _tasks(count: int, kind: str = "") -> str:
    return f"{count} {kind}task{'' if count == 1 else 's'}"


# An attempt that does nothing


async def idle_attempts(world: ProjectWorld, lines: Mapping[str, TaskLine], *, timeout_s: float) -> list[Finding]:
    """What comes of an attempt that calls nothing: check functions and state checks must work, and must not hold.

    Each function is run once, and of the state checks the first MOST_STATES, since they call tools.
    """
    tasks = {task.id: task for split in SPLITS for task in world.tasks(split)}
    failed: dict[str, str] = {}
    held: list[str] = []
    for where in _worth_trying(lines):
        try:
            solved = await _idle(world, tasks[lines[where].id], timeout_s)
        except WorldError as error:
            failed[where] = error.found
        else:
            if solved:
                held.append(where)
    idle = f'an attempt that calls nothing and answers "{NO_ATTEMPT}"'
    found = [
        Finding("error", f"{idle} cannot be judged: {why}", (where,), "mend the check, which must judge any attempt")
        for where, why in failed.items()
    ]
    if held:
        fix = "check something that is not so at the beginning"
        found.append(Finding("warning", f"{_tasks(len(held))} solved by {idle}", tuple(held), fix))
    return found


def _worth_trying(lines: Mapping[str, TaskLine]) -> Iterator[str]:
    seen: set[str] = set()
    states = 0
    for where, line in lines.items():
        has_state = any(isinstance(check, StateCheck) for check in line.checks)
        if (has_state and states < MOST_STATES) or set(line.functions) - seen:
            seen |= set(line.functions)
            states += has_state
            yield where


async def _idle(world: ProjectWorld, task: Task, timeout_s: float) -> bool:
    session = GuardedSession(world.open(task, seed=0), timeout_s=timeout_s, most=1000)
    return bool((await session.close(NO_ATTEMPT)).solved)

"""Attempts of `steptool traces import`, as demonstrations and as a round.

    demonstrations: {use: traces, path: traces/support}            those that may be imitated
    rounds: {log: {traces: traces/support}}                        all of them, the failed ones too

An attempt belongs to the task of its id, else to one that asks the same. Whether it solved the task, the check of the
task says where the answer decides it; else the label of the source; else nobody knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from steptool.core.errors import DataError
from steptool.core.fields import Outside, Settings
from steptool.core.types import Reference, Task, Trajectory
from steptool.traces import folder
from steptool.worlds.answers import outcome_of
from steptool.worlds.base import World
from steptool.worlds.traces.replies import question

HELD_OUT = "of tasks that are held out"
NOT_ASKED = "of questions that no task asks"
Keep = Literal["solved", "unchecked", "all"]


class ImportedTraces:
    name: ClassVar[str] = "traces"

    class Config(Settings):
        path: Annotated[Outside, Field(min_length=1)]
        """Folder that `steptool traces import` wrote."""
        keep: Keep = "unchecked"
        """solved: those that solved their task; unchecked: these, and those of which nobody knows; all: the failed
        ones too. An attempt that did not end is never kept."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @staticmethod
    def content(config: Config) -> str:
        """Hash of the folder. Raises DataError where there is none."""
        folder.refuse_unless_imported(Path(config.path))
        return f"traces {folder.content(Path(config.path))}"

    def read(self, world: World, tasks: Mapping[str, Task], seed: int) -> list[Trajectory]:
        """Attempts at training tasks that end in an answer; prints how many were left out, and why.

        Raises DataError where the folder is missing or broken, or none of its attempts is left.
        """
        training = {task.id: task for task in world.tasks("train")}
        references = {name: world.reference(task) for name, task in training.items()}
        attempts, left_out = self.attempts(training, tasks.values(), references)
        kept = []
        for attempt in attempts:
            reason = _problem(attempt, training[attempt.task_id], self.config.keep)
            left_out[reason] += reason != ""
            if not reason:
                kept.append(attempt)
        apart = counted(left_out)
        print(f"demonstrations: {len(kept)} attempts{f'; left out: {apart}' if apart else ''}", flush=True)
        if not kept:
            raise DataError(
                f"none of its attempts can be shown: {apart}",
                where=self.config.path,
                fix="import traces of tasks of this world, or set demonstrations.keep: all",
            )
        return kept

    def attempts(
        self, training: Mapping[str, Task], tasks: Iterable[Task], references: Mapping[str, Reference]
    ) -> tuple[list[Trajectory], Counter[str]]:
        """The attempts at `training` tasks, numbered for each task from 0 and judged; and how many others there are, by
        the reason why they are not among them. `tasks` are those of every split.

        Raises DataError where the folder is missing or broken.
        """
        known = list(tasks)
        by_id = {task.id: task for task in known}
        by_question = {question(task.query): task for task in reversed(known)}
        found: list[Trajectory] = []
        left_out, numbers = Counter[str](), Counter[str]()
        for query, attempt in folder.attempts(Path(self.config.path)):
            task = by_id.get(attempt.task_id) or by_question.get(question(query))
            if task is None or task.id not in training:
                left_out[NOT_ASKED if task is None else HELD_OUT] += 1
                continue
            own = _changed(attempt, task_id=task.id, attempt=numbers[task.id])
            found.append(judged_by(references[task.id], task, own))
            numbers[task.id] += 1
        return found, left_out


def judged_by(reference: Reference, task: Task, attempt: Trajectory) -> Trajectory:
    """The attempt, with the outcome that the check of its task gives to its answer, where that decides."""
    check = reference.answer_check
    if check is None or check.kind == "judge":
        return attempt
    return _changed(attempt, outcome=outcome_of(check, attempt.answer, task.query))


def _changed(record: Trajectory, **fields: Any) -> Trajectory:
    return Trajectory.create(**{**dict(record), **fields})


def counted(left_out: Mapping[str, int]) -> str:
    """`3 of tasks that are held out, 1 of questions that no task asks`."""
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)


def _problem(attempt: Trajectory, task: Task, keep: Keep) -> str:
    """Why an attempt is not shown; empty where it is."""
    return next(_problems(attempt, task, keep), "")


def _problems(attempt: Trajectory, task: Task, keep: Keep) -> Iterator[str]:
    last = attempt.steps[-1] if attempt.steps else None
    if last is None or not (last.is_finish or (last.action.message is not None and last.reply is None)):
        yield "that do not end in an answer"
    if any(step.action.unreadable is not None for step in attempt.steps):
        yield "with a call that cannot be read"
    offered = {tool.name for tool in task.tools}
    if any(call.name not in offered for step in attempt.steps if not step.is_finish for call in step.action.calls):
        yield "that call a tool which their task does not offer"
    solved = 0.0 if attempt.answer is None else attempt.outcome.solved
    if keep != "all" and solved is not None and solved < 1:
        yield "that did not solve their task"
    if keep == "solved" and solved is None:
        yield "of which nobody knows whether they solved their task"

"""Attempts for judges to agree about, and what is said of them: by the world, by a file, by an annotator."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from pydantic import ValidationError

from steptool.annotators.annotate import annotate_all, opened
from steptool.commands.traces import settings_of
from steptool.config.places import REFERENCES, TASKS
from steptool.config.plugins import Section, Use
from steptool.core.errors import InputError
from steptool.core.storage import read_jsonl
from steptool.core.types import Reference, ScoredTrajectory, Task, Trajectory
from steptool.traces import stored
from steptool.traces.judged import judged_attempts

SCORE = "solved"
OUTCOME, VOTE = "outcome", "vote"
"""Columns beside the scores of a file: what the session recorded, and what each vote of judged runs said."""
CONCURRENCY = 32
ATTEMPTS = "name a file of attempts, such as data/scored/r1/scored.jsonl.gz, or judged runs"
ANNOTATE = Section("annotate", "rules")
Values = Mapping[tuple[str, int], float | None]
"""By the id of an attempt and the step."""


@dataclass
class Attempts:
    """Of one file or folder."""

    source: Path
    made: dict[str, Trajectory] = field(default_factory=dict)
    """By its id: a copy of an attempt is the same one."""
    tasks: dict[str, Task] = field(default_factory=dict)
    references: dict[str, Reference] = field(default_factory=dict)
    columns: dict[str, dict[tuple[str, int], float | None]] = field(default_factory=dict)

    def keep(self, column: str, attempt: Trajectory, step: int, value: float | None) -> None:
        """Raises InputError where another value was kept there: whose score counts, nobody could say."""
        kept = self.columns.setdefault(column, {}).setdefault((attempt.id, step), value)
        if kept != value:
            said = f"the {column} of attempt {attempt.id} at task {attempt.task_id} is {kept}, and {value} once more"
            raise InputError(said, where=str(self.source), fix="keep one line of each attempt")

    def keep_scores(self, of: ScoredTrajectory) -> None:
        for step, judgement in enumerate(of.judgements):
            for name, value in judgement.scores.items():
                self.keep(name, of.trajectory, step, value)


def attempts_of(source: Path, tasks: Path | None = None) -> Attempts:
    """Attempts of any stage, or judged runs as those of the ToolBench pack. `tasks`: the folder of their tasks, or the
    file of the requests of judged runs.

    Raises InputError or DataError where there are none, or they cannot be read.
    """
    found = Attempts(source)
    kind = stored.kind_of(source)
    if kind is None:
        for run in judged_attempts(source, tasks):
            _add(found, run.trajectory, run.task)
            last = _last(run.trajectory)
            if run.votes:
                found.keep(SCORE, run.trajectory, last, fmean(run.votes))
            for number, vote in enumerate(run.votes):
                found.keep(f"{VOTE}{number}", run.trajectory, last, vote)
        return found
    if not stored.is_stored(source):
        holds = f"records called {kind[:40]}, no attempts" if kind else "no attempts"
        raise InputError(f"holds {holds}", where=str(source), fix=ATTEMPTS)
    for task, made in stored.read(source, tasks):
        if task is None:
            said = f"attempt {made.id} is at task {made.task_id[:80]!r}, which is not there"
            raise InputError(said, where=str(source), fix="name the folder of their tasks by --tasks")
        _add(found, made, task)
    if not found.made:
        raise InputError("holds no attempts", where=str(source), fix=ATTEMPTS)
    for each in stored.scored(source):
        found.keep_scores(each)
    file = REFERENCES if tasks is None else tasks / REFERENCES.relative_to(TASKS)
    if file.is_file():
        found.references |= {each.task_id: each for each in read_jsonl(file, Reference)}
    return found


def _add(found: Attempts, made: Trajectory, task: Task) -> None:
    found.made[made.id] = made
    found.tasks[task.id] = task
    found.references.setdefault(task.id, Reference(task_id=task.id))
    found.keep(OUTCOME, made, _last(made), made.outcome.solved)


def _last(made: Trajectory) -> int:
    return max(len(made.steps) - 1, 0)


def said_by(judge: str, attempts: Attempts) -> Values:
    """What a judge says of the attempts: a column of their file, another file of scored attempts, or an annotator.

    verdict · use=local_judge · use=judge,url=http://…,model=m#verdict · data/scored/r1/scored.jsonl.gz#solved

    Raises InputError where it is none of these.
    """
    named, _, score = judge.partition("#")
    found = Attempts(attempts.source)
    if "=" in named:
        scored: Iterable[ScoredTrajectory] = annotated(annotator_of(named), attempts)
    elif os.path.exists(named):  # where a path raises for a name that is too long
        found = Attempts(Path(named))
        scored = stored.scored(Path(named))
    elif named in attempts.columns:
        return attempts.columns[named]
    else:
        raise InputError(
            f"{named[:80]!r} is neither a file nor a score of the attempts",
            where=str(attempts.source),
            fix=f"name one of {', '.join(sorted(attempts.columns))}, a file, or an annotator such as use=local_judge",
        )
    for each in scored:
        found.keep_scores(each)
    score = score or SCORE
    if score not in found.columns:
        fix = f"name another one behind #: {', '.join(sorted(found.columns)) or 'there is none'}"
        raise InputError(f"{named[:80]} gives no score {score[:80]!r}", where=str(attempts.source), fix=fix)
    return found.columns[score]


def annotator_of(written: str) -> Use:
    """The annotator of `use=judge,url=…,model=…`. Raises InputError where it is none."""
    cause: Exception
    try:
        return ANNOTATE.read(settings_of(written.split(",")))
    except InputError as error:
        said, cause = error.found, error
    except ValidationError as error:  # before ValueError, which it is
        first = error.errors()[0]
        said, cause = f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}", error
    except ValueError as error:
        said, cause = str(error), error
    raise InputError(
        f"no annotator: {said[:300]}", where=written[:120], fix="write it as use=rules,key=value"
    ) from cause


def annotated(used: Use, attempts: Attempts) -> Sequence[ScoredTrajectory]:
    """The attempts, judged by an annotator. Raises what it raises."""
    with opened(used) as (annotator, revision):
        return annotate_all(
            annotator,
            revision,
            list(attempts.made.values()),
            attempts.tasks.values(),
            attempts.references,
            source=attempts.source,
            what=f"judge by {used.name}",
            concurrency=CONCURRENCY,
        )

"""`steptool traces import`: conversations of any source as tasks and trajectories in `traces/NAME/`.

    read     a reader gives conversations one after the other; what it cannot read ends the import, or is counted
    scrub    before anything is written, shown or counted
    merge    `traces/merging`
    write    tasks, tools, trajectories and a report, whole or not at all

In memory stay some numbers a conversation; the conversations themselves wait in a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steptool.core.errors import DataError, InputError
from steptool.core.storage import output_folder, write_json
from steptool.core.types import AnswerCheck, Tool, Trajectory
from steptool.traces import folder as imported
from steptool.traces.conversation import Conversation, Reader, Skipped
from steptool.traces.labels import RecordSettings
from steptool.traces.merging import Merging
from steptool.traces.report import MOST_JUDGED, Report, Skips, judge
from steptool.traces.scrub import Scrubber
from steptool.traces.steps import Attempt, attempt_of
from steptool.traces.tasks import as_tasks
from steptool.traces.tools import Offered
from steptool.worlds.answers import outcome_of
from steptool.worlds.checks import MAX_NAME, TOTALS
from steptool.worlds.project.tasks import TaskLine

EVERY = 10_000
"""Records between two reports of progress."""


@dataclass
class Import:
    """One import. `into` may be called once."""

    source: str
    kind: str
    """Name of the reader."""
    reader: Reader
    scrubber: Scrubber
    lenient: bool = False
    """Whether records that cannot be read are left out, instead of ending the import."""
    with_system: bool = False
    """Whether messages of the system are put before the query."""
    on_progress: Callable[[int], None] = lambda count: None
    """Told from time to time how many records were read."""
    _skips: Skips = field(default_factory=Skips)
    _merging: Merging = field(default_factory=Merging)
    _offered: Offered = field(default_factory=Offered)
    _system_messages: int = 0
    _earlier: int = 0
    _found: set[str] = field(default_factory=set)
    """Settings of the reader that some conversation had something for."""

    def into(self, path: Path, *, add: bool = False) -> Report:
        """Write the folder `path`, or with `add` what it holds and this.

        Raises InputError where it is there already and DataError for a record that cannot be read, or a source without
        a conversation to learn from. Then nothing is written.
        """
        if add and not imported.is_imported(path):
            raise InputError("no imported folder to add to", where=str(path), fix="leave out --add")
        if path.exists() and not add:
            fix = "choose another --name, or add to it with --add"
            raise InputError("is there already", where=str(path), fix=fix)
        with output_folder(path, {"stage": "traces import", "kind": self.kind}) as temporary:
            spool = temporary / "attempts.tmp"
            with spool.open("w", encoding="utf-8") as waiting:
                for attempt in self._attempts(path if add else None):
                    if self._merging.add(attempt):
                        waiting.write(attempt.model_dump_json() + "\n")
            if not self._merging.kept:
                raise self._nothing()
            tasks = _Tasks(imported.raw_tasks(path) if add else [], self._offered.all())
            with spool.open(encoding="utf-8") as waiting:
                imported.write_trajectories(temporary, self._done(waiting, tasks))
            spool.unlink()
            imported.write_tasks(temporary, tasks.lines, tasks.tools)
            report = self._report(tasks)
            write_json(temporary / imported.REPORT, report.model_dump(mode="json"))
        return report

    def _attempts(self, before: Path | None) -> Iterator[Attempt]:
        """Those that the folder `before` holds, and those of the source."""
        if before is not None:
            self._offered.add(imported.tools(before), ())
            for attempt in _held(before):
                self._offered.add((), attempt.steps)
                self._earlier += 1
                yield attempt
        for count, found in enumerate(self.reader.read(self.source), start=1):
            if count % EVERY == 0:
                self.on_progress(count)
            if isinstance(found, Skipped):
                self._skip(found)
                continue
            self._found |= _said(found)
            conversation = self.scrubber.conversation(found)
            shown = attempt_of(conversation, with_system=self.with_system)
            if isinstance(shown, Skipped):
                self._skip(shown)
                continue
            self._system_messages += _system_messages(conversation) if not self.with_system else 0
            self._offered.add(conversation.tools, shown.steps)
            yield shown

    def _skip(self, skipped: Skipped) -> None:
        where, reason = self.scrubber.text(skipped.where), self.scrubber.text(skipped.reason)
        if skipped.is_broken and not self.lenient:
            fix = "mend the record, or leave out all that cannot be read with --lenient"
            raise DataError(reason, where=where, fix=fix)
        self._skips.add(where, reason)

    def _nothing(self) -> DataError:
        return DataError(
            f"no conversation to learn from: {self._skips}" if str(self._skips) else "no conversation in it",
            where=self.scrubber.text(self.source),
            fix="look whether --from names the right kind; docs/traces.md says what each of them reads",
        )

    def _done(self, waiting: Iterator[str], tasks: _Tasks) -> Iterator[Trajectory]:
        for number, line in self._merging.remaining(waiting):
            yield tasks.add(self._merging.completed(number, Attempt.model_validate_json(line)))

    def _never_found(self) -> Iterator[str]:
        yield from (f"--drop {name}" for name in self.scrubber.never_found)
        config = getattr(self.reader, "config", None)
        if isinstance(config, RecordSettings):
            paths = {name: getattr(config, name) for name in ("label", "group", "expected")}
            yield from (f"--set {name}={path}" for name, path in paths.items() if path and name not in self._found)

    def _report(self, tasks: _Tasks) -> Report:
        return Report(
            source=self.scrubber.text(self.source),
            kind=self.kind,
            kept=self._merging.kept,
            earlier=self._earlier,
            tasks=len(tasks.lines),
            tasks_with_a_check=sum("check" in line for line in tasks.lines),
            copies=self._merging.copies,
            beginnings=self._merging.beginnings,
            skipped=self._skips.places(),
            stop_reasons=dict(tasks.stop_reasons.most_common()),
            models=dict(tasks.models.most_common()),
            labels=dict(tasks.labels.most_common()),
            contradictions=self._merging.contradictions,
            system_messages=self._system_messages,
            tools=len(tasks.tools),
            inferred_tools=tuple(self._offered.inferred()),
            varied_tools=tuple(self._offered.varied()),
            scrubbed=dict(self.scrubber.counts.most_common()),
            never_found=tuple(self._never_found()),
            judged=judge(tasks.first, as_tasks(map(TaskLine.model_validate, tasks.lines), tasks.tools)),
        )


def _held(folder: Path) -> Iterator[Attempt]:
    """The attempts of an imported folder. One at a task that is no longer in it is left out."""
    tasks = {task.id: task for task in imported.tasks(folder)}
    for done in imported.each_trajectory(folder):
        if (task := tasks.get(done.task_id)) is not None:
            yield Attempt(
                where=done.id,
                known_as=task.id,
                query=task.query,
                tools=task.tools,
                steps=done.steps,
                stop_reason=done.stop_reason,
                answer=done.answer,
                model=done.policy.name,
                solved=done.outcome.solved,
                evidence=done.outcome.evidence,
            )


def _said(of: Conversation) -> set[str]:
    """What it says beside its messages, by the settings that name it."""
    has = {"label": of.solved is not None, "group": bool(of.group), "expected": of.check is not None}
    return {name for name, is_there in has.items() if is_there}


def _system_messages(of: Conversation) -> int:
    return sum(message.role == "system" for message in of.messages)


class _Tasks:
    """The tasks of the attempts that are written, and what these come to."""

    def __init__(self, earlier: list[dict[str, Any]], tools: list[Tool]) -> None:
        self.tools = tools
        self.first: list[Trajectory] = []
        """As many as are judged for the report."""
        self.stop_reasons: Counter[str] = Counter()
        self.models: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self._lines = {line["id"]: line for line in earlier}
        self._names = frozenset(tool.name for tool in tools)
        self._attempts: Counter[str] = Counter()
        self._earlier = frozenset(self._lines)
        self._disputed: set[str] = set()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return list(self._lines.values())

    def add(self, attempt: Attempt) -> Trajectory:
        self._note(attempt)
        if attempt.solved is None and attempt.check is not None:
            outcome = outcome_of(attempt.check, attempt.answer, attempt.query)
            attempt = attempt.model_copy(update={"solved": outcome.solved, "evidence": outcome.evidence})
        done = attempt.trajectory(self._attempts[attempt.task_id])
        self._attempts[attempt.task_id] += 1
        self.stop_reasons[done.stop_reason.value] += 1
        self.models[done.policy.name] += 1
        self.labels[_label(done.outcome.solved)] += 1
        if len(self.first) < MOST_JUDGED:
            self.first.append(done)
        return done

    def _note(self, attempt: Attempt) -> None:
        """The line of its task; two attempts that expect different answers leave it without a check."""
        line = self._lines.setdefault(attempt.task_id, _line(attempt, self._names))
        if attempt.task_id in self._earlier or attempt.check is None or attempt.task_id in self._disputed:
            return
        check = _check(attempt.check)
        if line.setdefault("check", check) != check:
            del line["check"]
            self._disputed.add(attempt.task_id)


def _line(attempt: Attempt, known: Container[str]) -> dict[str, Any]:
    line: dict[str, Any] = {"id": attempt.task_id, "query": attempt.query}
    if tools := [name for name in attempt.tools or () if name in known]:
        line["tools"] = tools
    group = "".join(c for c in attempt.group.strip() if c.isprintable())[:MAX_NAME]
    return line | ({"group": group} if group and group not in TOTALS else {})


def _check(check: AnswerCheck) -> dict[str, Any]:
    """As a line of tasks has it, where prose may say an answer by default."""
    usual = {"tolerance": 0.0, "strict": False}
    written = {"kind": check.kind, "expected": check.expected, "tolerance": check.tolerance, "strict": check.strict}
    return {key: value for key, value in written.items() if key not in usual or value != usual[key]}


def _label(solved: float | None) -> str:
    return "unknown" if solved is None else {1.0: "solved", 0.0: "not solved"}.get(solved, "in between")

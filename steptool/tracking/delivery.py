"""Sends to MLflow what the runs of a checkout write into their journals.

    run ── appends ─→ .steptool/unlogged/<name>.jsonl ── read by ─→ Delivery ─→ MLflow

MLflow takes two seconds to import and connect. So a stage of a pipeline leaves delivery to the pipeline's process,
which has MLflow loaded (`steptool.tracking.relay`); a stage that runs by itself delivers when its work is done. Each
delivery sends all that waits in the checkout, also what was left when a server was lost or a process was killed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from steptool.config.places import WORK
from steptool.core.errors import DataError, StepToolError, TrackingError
from steptool.tracking.client import RefusedError, connect, mlflow_errors, warn
from steptool.tracking.journal import Entry, Header, Journal, Sent, now_ms
from steptool.tracking.redaction import public
from steptool.tracking.sender import send

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Delivery:
    """From the journals of the checkout `root` to MLflow at `uri`. One process of a checkout sends at a time."""

    def __init__(self, root: Path, uri: str) -> None:
        self.folder = root.resolve() / WORK / "unlogged"
        self.uri = uri
        self._lock = FileLock(f"{self.folder}.lock")
        self._connections: dict[str, tuple[MlflowClient, str]] = {}

    def connection(self, experiment: str) -> tuple[MlflowClient, str]:
        """The client and the id of `experiment`. Raises TrackingError if MLflow cannot be reached."""
        if experiment not in self._connections:
            self._connections[experiment] = connect(self.uri, experiment)
        return self._connections[experiment]

    def open(self, journal: Journal, header: Header) -> str:
        """The id in MLflow of the run of `journal`, which is opened now if it was not.

        Raises TrackingError if MLflow cannot be reached.
        """
        with self._lock:
            return (journal.sent() or self._opened(journal, header)).run_id

    def deliver(self) -> None:
        """Send what is new in every journal, and forget those of runs that have ended.

        A run whose process is gone ends as KILLED. What MLflow will never take of a run, and a journal that cannot be
        read, is set aside with a warning. Raises TrackingError if MLflow cannot be reached or does not let a run be
        opened, OSError if the disk fails; what was not sent stays.
        """
        refused: RefusedError | None = None
        if self.folder.exists():
            with self._lock:
                for path in sorted(self.folder.glob("*.jsonl")):  # oldest first
                    try:
                        self._deliver(Journal(path))
                    except RefusedError as error:  # the experiment was deleted: that is nothing to the other journals
                        refused = error
        if refused:
            raise refused

    def try_to_deliver(self, *, warned: bool = False) -> bool:
        """`deliver`, where its error is False and a warning, unless `warned` before."""
        try:
            self.deliver()
        except (TrackingError, OSError) as error:
            if not warned:
                found = f"{error.found} ({error.where})" if isinstance(error, StepToolError) else str(error)
                warn(f"{found}; the work goes on, its log is kept in {self.folder}")
            return False
        return True

    def _deliver(self, journal: Journal) -> None:
        try:
            header = journal.header()
            if header is not None and header.uri == public(self.uri):
                self._send_new(journal, header)
        except DataError as error:
            warn(f"{error}; set aside in {journal.set_aside()}")

    def _send_new(self, journal: Journal, header: Header) -> None:
        gone = header.writer_is_gone()  # asked first: what is read after that is whole
        sent = journal.sent() or self._opened(journal, header)
        try:
            entries = journal.entries(skip=sent.entries)
        except DataError:
            self._send(journal, header, sent.run_id, Entry(status="FAILED", ended_ms=now_ms()))
            raise
        end = Entry(status="KILLED", ended_ms=now_ms()) if gone else None
        if entries and entries[-1].status:
            end = entries.pop()
        for count, entry in _with_metrics_joined(entries):
            self._send(journal, header, sent.run_id, entry)
            sent = Sent(run_id=sent.run_id, entries=sent.entries + count)
            journal.note_sent(sent)
        if end is not None:
            self._send(journal, header, sent.run_id, end)
            if header.parent_to_end:
                parents = Entry(status=end.status, ended_ms=end.ended_ms)
                self._send(journal, header, header.parent_to_end, parents)
            journal.remove()

    def _opened(self, journal: Journal, header: Header) -> Sent:
        journal.note_sent(None)  # a full disk shows here, before there is a run that could not be noted
        client, experiment_id = self.connection(header.experiment)
        with mlflow_errors(self.uri, "start a run"):
            run = client.create_run(experiment_id, header.started_ms, header.tags, header.name)
        sent = Sent(run_id=run.info.run_id, entries=0)
        journal.note_sent(sent)
        return sent

    def _send(self, journal: Journal, header: Header, run_id: str, entry: Entry) -> None:
        client, _ = self.connection(header.experiment)
        run_id = entry.run_id or run_id
        try:
            with mlflow_errors(self.uri, "log"):
                send(client, run_id, entry)
        except RefusedError as error:
            journal.refuse(entry.model_copy(update={"run_id": run_id}))
            warn(f"{error.found}; kept in {journal.refused_path}")


def _with_metrics_joined(entries: Iterable[Entry]) -> Iterator[tuple[int, Entry]]:
    """Entries to send, one request each, and how many journal entries each stands for: metrics of many steps are
    joined."""

    def kind(numbered: tuple[int, Entry]) -> tuple[int, str | None]:
        number, entry = numbered
        only_metrics = entry == Entry(run_id=entry.run_id, metrics=entry.metrics)
        return -1 if only_metrics else number, entry.run_id

    for _, group in groupby(enumerate(entries), kind):
        alike = [entry for _, entry in group]
        yield len(alike), alike[0].model_copy(update={"metrics": tuple(row for one in alike for row in one.metrics)})

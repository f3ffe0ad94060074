"""Sends to MLflow what the stages of a pipeline write down, from the one process that has MLflow loaded.

    stage ── appends ─→ .steptool/unlogged/<name>.jsonl ── followed by ─→ relay ─→ MLflow

MLflow takes two seconds to import and connect; so paid once a pipeline, not once a stage. A stage never waits for it,
and nothing is lost with the relay: what is not sent stays on disk, and the next relay of the checkout goes on with it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from steptool.core.errors import DataError, StepToolError, TrackingError
from steptool.core.storage import write_bytes
from steptool.tracking.journal import Entry, Opening, Spool, Status, entries_of, header_of
from steptool.tracking.machine import host_name, process_runs
from steptool.tracking.run import WORK, Tracking, warn

POLL_S = 1.0
RETRY_S = 10.0
"""Between attempts to reach an MLflow that is gone."""


class Relay:
    """A thread that sends for the stages of the checkout `root`: a context manager, at whose end all is sent or kept.

    Of several in one checkout one sends, and another takes over when it ends.
    """

    def __init__(self, root: Path) -> None:
        self._work = root.resolve() / WORK
        self._unlogged = self._work / "unlogged"
        self._files: dict[Path, _File] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        self._work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._work / "relay.lock", thread_local=False)
        reached = True
        while not self._ended.wait(POLL_S if reached else RETRY_S):
            reached = self._turn(lock, reached)
        self._turn(lock, reached)
        lock.release()

    def _turn(self, lock: FileLock, reached: bool) -> bool:
        """Send what is new in every file; False where MLflow or the disk does not let it, which is said once."""
        try:
            if not lock.is_locked:
                lock.acquire(timeout=0)
            for path in sorted(self._unlogged.glob("*.jsonl")):
                self._send(path)
        except Timeout:
            return True
        except (TrackingError, OSError) as error:
            if reached:
                found = f"{error.found} ({error.where})" if isinstance(error, StepToolError) else str(error)
                warn(f"{found}; the pipeline goes on, its log is kept in {self._unlogged}")
            return False
        return True

    def _send(self, path: Path) -> None:
        try:
            file = self._files.get(path) or _begin(path)
            if file is None:
                return
            self._files[path] = file
            if file.send():
                del self._files[path]
        except DataError as error:
            path.rename(path.with_suffix(".refused"))
            warn(f"{error}; set aside in {path.with_suffix('.refused')}")
            if broken := self._files.pop(path, None):
                broken.end("FAILED")


@dataclass
class _File:
    """A stage's file: the run that it is sent to, and how many of its entries have been."""

    spool: Spool
    tracking: Tracking
    opens: Opening
    run_id: str
    sent: int = 0

    def send(self) -> bool:
        """Send what is new; True where that was all that will ever come, and the file is gone."""
        gone = self._writer_is_gone()  # asked first: what is read after that is whole
        ended = False
        for entry in entries_of(self.spool.path, skip=self.sent):
            own = entry.run_id == self.spool.path.stem
            self._deliver(entry, self.run_id if own else entry.run_id)
            self.sent += 1
            ended |= own and entry.status is not None
        if gone and not ended:
            self.end("KILLED")
        if gone or ended:
            self.spool.remove()
        return gone or ended

    def end(self, status: Status) -> None:
        """Close the run, whose stage did not."""
        self._deliver(Entry(run_id=self.run_id, status=status, ended_ms=int(time.time() * 1000)), self.run_id)

    def _deliver(self, entry: Entry, run_id: str) -> None:
        self.tracking.deliver(entry.model_copy(update={"run_id": run_id}), self.spool)

    def _writer_is_gone(self) -> bool:
        tags = self.opens.tags
        return tags["steptool.host"] == host_name() and not process_runs(int(tags["steptool.pid"]))


def _begin(path: Path) -> _File | None:
    """The file with the run that an earlier relay opened for it, or a new one; None where it is nothing for us."""
    header = header_of(path)
    if header is None or header.opens is None:
        return None
    tracking = Tracking(None, header.opens.experiment, root=path.parents[2])
    if header.uri != tracking.public_uri:
        return None
    spool = Spool(path.parent, path.stem, header.uri, header.opens)
    run_id = spool.opened_path.read_text() if spool.opened_path.exists() else ""
    if not run_id:
        write_bytes(spool.opened_path, b"")  # a full disk shows here, before there is a run that could not be noted
        run_id = tracking.create_run(header.opens.name, header.opens.tags, header.opens.started_ms)
        write_bytes(spool.opened_path, run_id.encode())
    return _File(spool, tracking, header.opens, run_id)

"""What happened: one MLflow run a stage, under one parent run for the whole pipeline.

A server that does not answer at the start of a stage is a TrackingError before any work is done.
One that is lost later costs nothing: the stage goes on, says so in one line, and what could not be
logged waits in `.steptool/unlogged/` until a later stage, or `Tracking.flush_unlogged`, sends it.

Which parent a stage belongs to: the one named by STEPTOOL_PARENT_RUN_ID (`steptool run` and the
flows set it), else the one in `.steptool/pipeline_run`, which the first stage writes. So stages run
one by one, or by a bare `dvc repro`, gather under one parent until `new_pipeline` opens the next.

Where STEPTOOL_RELAYED is set beside it, a stage does not talk to MLflow itself, whose import alone takes longer
than some stages do: the process that set it sends what the stage writes down (`steptool.tracking.relay`).
"""

from __future__ import annotations

import os
import re
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from filelock import FileLock
from pydantic import BaseModel

from steptool.core.errors import DataError, StorageError, TrackingError
from steptool.core.storage import write_json
from steptool.tracking.client import RefusedError, connect, resolve_uri, told_plainly
from steptool.tracking.journal import PID, Dataset, Entry, Metric, Opening, Spool, Status, entries_of, waiting
from steptool.tracking.machine import describe_environment, host_name, process_runs
from steptool.tracking.redaction import public, redact
from steptool.tracking.sender import send

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT_VARIABLE = "STEPTOOL_PARENT_RUN_ID"
RELAYED_VARIABLE = "STEPTOOL_RELAYED"
WORK = Path(".steptool")
FLUSH_ROWS = 500
FLUSH_SECONDS = 5.0
"""Metrics are sent when this many wait, or this long after the last sending."""


class Tracking:
    """Runs of one experiment.

    `uri` None takes MLFLOW_TRACKING_URI, else the SQLite database `mlflow.db` in `root`. Nothing is
    read or written before the first use.
    """

    def __init__(self, uri: str | None, experiment: str, *, root: Path = Path()) -> None:
        self.root = root.resolve()
        self.uri = resolve_uri(uri, self.root)
        self.experiment = experiment
        self.public_uri = public(self.uri)
        self.unlogged = self.root / WORK / "unlogged"

    @cached_property
    def _connection(self) -> tuple[MlflowClient, str]:
        return connect(self.uri, self.experiment)

    @property
    def client(self) -> MlflowClient:
        """The MLflow client. Raises TrackingError if MLflow cannot be reached."""
        return self._connection[0]

    @property
    def experiment_id(self) -> str:
        return self._connection[1]

    def new_pipeline(self, name: str = "pipeline") -> str:
        """Open the parent run of the stages to come, and return its id."""
        self._end_killed_runs("tags.`steptool.kind` = 'pipeline'")
        run_id = self.create_run(name, {"steptool.kind": "pipeline"} | describe_environment(self.root))
        write_json(self._parent_file, {"run_id": run_id, "experiment": self.experiment, "uri": self.public_uri})
        return run_id

    @contextmanager
    def pipeline(self, params: Mapping[str, Any] | None = None) -> Iterator[PipelineRun]:
        """The parent run of the stages that run in the block, with the settings `params`. It ends with `status`, or
        with what ends the block: as FAILED on an exception, as KILLED on an interrupt.

        Raises TrackingError, before the block starts, if MLflow cannot be reached; at the end that is a warning.
        """
        run = PipelineRun(self, self.new_pipeline())
        run.params(params or {})
        try:
            yield run
        except BaseException as error:
            run.status = _status_of(error)
            raise
        finally:
            run.close()

    def pipeline_run_id(self) -> str:
        """The parent of the next stage's run; opens one where there is none. See the module's rule."""
        if run_id := os.environ.get(PARENT_VARIABLE):
            return run_id
        self._parent_file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._parent_file.with_suffix(".lock")):  # stages may start side by side
            return self._remembered_parent() or self.new_pipeline()

    @contextmanager
    def stage(
        self,
        name: str,
        *,
        round: str | None = None,
        params: Mapping[str, Any] | None = None,
        tracks_itself: bool = False,
    ) -> Iterator[StageRun]:
        """Track one stage. Its run ends as FINISHED, as FAILED on an exception, as KILLED on an interrupt.

        `tracks_itself`: it talks to MLflow, relayed or not, because it needs the run's id there.
        Raises TrackingError, before the block starts, if MLflow cannot be reached; relayed, it does not ask.
        """
        label = f"{name}@{round}" if round else name
        relayed = {PARENT_VARIABLE, RELAYED_VARIABLE} <= os.environ.keys() and not tracks_itself
        parent = os.environ[PARENT_VARIABLE] if relayed else self.pipeline_run_id()
        tags = describe_environment(self.root) | {
            "steptool.kind": "stage",
            "steptool.stage": label,
            "mlflow.parentRunId": parent,
            "mlflow.source.name": f"steptool {name}" + (f" {round}" if round else ""),
            "mlflow.source.type": "LOCAL",
        }
        run = self._written_run(label, parent, tags) if relayed else self._opened_run(label, parent, tags)
        run.params(params or {})
        started = time.monotonic()
        try:
            yield run
        except BaseException as error:
            said = redact(f"{type(error).__name__}: {error}", self.uri)
            try:
                run.end(_status_of(error), time.monotonic() - started, said)
            except StorageError as lost:  # the error that ended the stage says more
                warn(f"{label}: {lost}")
            raise
        run.end("FINISHED", time.monotonic() - started, "")

    def _opened_run(self, label: str, parent: str, tags: dict[str, str]) -> StageRun:
        self.flush_unlogged()
        self._end_killed_runs(f"tags.`mlflow.parentRunId` = '{parent}' AND tags.`steptool.stage` = '{label}'")
        run_id = self.create_run(label, tags)
        return StageRun(self, run_id, label, parent, Spool(self.unlogged, run_id, self.public_uri))

    def _written_run(self, label: str, parent: str, tags: dict[str, str]) -> StageRun:
        opens = Opening(experiment=self.experiment, name=label, tags=tags, started_ms=int(time.time() * 1000))
        name = uuid.uuid4().hex
        return StageRun(self, name, label, parent, Spool(self.unlogged, name, self.public_uri, opens), relayed=True)

    def flush_unlogged(self) -> int:
        """Send what earlier runs could not; returns how many entries were sent.

        An entry that MLflow will never take is set aside in `<run_id>.refused`. Raises TrackingError
        if MLflow cannot be reached; then everything stays.
        """
        sent = 0
        for spool in waiting(self.unlogged, self.public_uri):
            read = 0
            while not spool.remove(read):  # its run may be writing still
                for entry in entries_of(spool.path, skip=read):
                    sent += self.deliver(entry, spool)
                    read += 1
        return sent

    def deliver(self, entry: Entry, spool: Spool) -> bool:
        """Send `entry`; False if MLflow refused it, which is said in one line and kept in `spool`.

        Raises TrackingError if MLflow cannot be reached.
        """
        try:
            with told_plainly(self.uri, "log"):
                send(self.client, entry)
        except RefusedError as error:
            spool.refuse(entry)
            warn(f"{error.found}; kept in {spool.refused_path}")
            return False
        return True

    @property
    def _parent_file(self) -> Path:
        return self.root / WORK / "pipeline_run"

    def _remembered_parent(self) -> str | None:
        """The run in `.steptool/pipeline_run`, if it is one of this experiment that still exists."""
        try:
            noted = _Parent.model_validate_json(self._parent_file.read_bytes())
            if (noted.uri, noted.experiment) != (self.public_uri, self.experiment):
                return None
            with told_plainly(self.uri, "look for the pipeline's run"):
                run = self.client.get_run(noted.run_id)
        except (OSError, ValueError, TrackingError):
            return None
        return noted.run_id if run.info.lifecycle_stage == "active" else None

    def create_run(self, name: str, tags: dict[str, str], started_ms: int | None = None) -> str:
        """Open a run, now or at a time gone by. Raises TrackingError if MLflow cannot be reached."""
        with told_plainly(self.uri, "start a run"):
            run = self.client.create_run(self.experiment_id, start_time=started_ms, tags=tags, run_name=name)
        return str(run.info.run_id)

    def _end_killed_runs(self, such: str) -> None:
        """Mark such runs of this machine whose process is gone: SIGKILL left them RUNNING for ever."""
        question = f"{such} AND tags.`steptool.host` = '{host_name()}' AND attributes.status = 'RUNNING'"
        with told_plainly(self.uri, "look for earlier runs"):
            for run in self.client.search_runs([self.experiment_id], question):
                pid = run.data.tags.get("steptool.pid", "")
                if re.fullmatch(PID, pid) and not process_runs(int(pid)):
                    self.client.set_terminated(run.info.run_id, "KILLED")


class _Parent(BaseModel):
    """`.steptool/pipeline_run`."""

    run_id: str
    experiment: str
    uri: str


class StageRun:
    """The tracked run of one stage. No method raises because MLflow is gone; see the module's docstring."""

    def __init__(
        self, tracking: Tracking, run_id: str, label: str, parent: str, spool: Spool, *, relayed: bool = False
    ) -> None:
        self.run_id = run_id
        """In MLflow, or, relayed, what the entries of the spool call the run."""
        self._tracking, self._label, self._parent, self._spool = tracking, label, parent, spool
        self._metrics: list[Metric] = []
        self._flushed = time.monotonic()
        self._spooled = relayed

    def params(self, params: Mapping[str, Any]) -> None:
        """Log settings; nested ones get dotted names."""
        self._deliver(Entry(run_id=self.run_id, params=flatten(params)))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers of one optimiser step (or whatever the stage counts); sent in batches."""
        now = int(time.time() * 1000)
        self._metrics += [Metric(key=k, value=float(v), step=step, timestamp_ms=now) for k, v in values.items()]
        if len(self._metrics) >= FLUSH_ROWS or time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self._flush()

    def dataset(self, path: Path, name: str, content_hash: str, *, context: str = "input") -> None:
        """Log that the stage read (or, by `context`, wrote) the data at `path` with this content."""
        dataset = Dataset(name=name, digest=content_hash[:36], source=str(path), context=context)
        self._deliver(Entry(run_id=self.run_id, dataset=dataset))

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file or folder into the run, under `folder`. Raises DataError if it is not there."""
        if not path.exists():
            raise DataError("no such file or folder to log", where=str(path), fix="write it before logging it")
        self._deliver(Entry(run_id=self.run_id, artifact=str(path), artifact_folder=folder))

    def summary(self, values: Mapping[str, float]) -> None:
        """Log the stage's result, and the same on the pipeline's run as `<stage>.<name>`, to compare pipelines."""
        now = int(time.time() * 1000)
        for run_id, prefix in ((self.run_id, ""), (self._parent, f"{self._label.replace('@', '.')}.")):
            rows = (Metric(key=prefix + k, value=float(v), step=0, timestamp_ms=now) for k, v in values.items())
            self._deliver(Entry(run_id=run_id, metrics=tuple(rows)))

    def tags(self, values: Mapping[str, str]) -> None:
        self._deliver(Entry(run_id=self.run_id, tags=dict(values)))

    def end(self, status: Status, wall_time_s: float, error: str) -> None:
        """Close the run; called once, by `Tracking.stage`."""
        self.metrics(0, {"wall_time_s": wall_time_s})
        self._flush()
        tags = {"steptool.error": error} if error else {}
        ended = int(time.time() * 1000)
        self._deliver(Entry(run_id=self.run_id, tags=tags, status=status, ended_ms=ended))
        if PARENT_VARIABLE not in os.environ:  # nobody else will end the parent
            self._deliver(Entry(run_id=self._parent, status=status, ended_ms=ended))

    def _flush(self) -> None:
        waiting_metrics, self._metrics = tuple(self._metrics), []
        self._flushed = time.monotonic()
        if waiting_metrics:
            self._deliver(Entry(run_id=self.run_id, metrics=waiting_metrics))

    def _deliver(self, entry: Entry) -> None:
        """Send `entry`, or write it down; after the first failure the rest of the run too, without trying again."""
        if not self._spooled:
            try:
                self._tracking.deliver(entry, self._spool)
                return
            except TrackingError as error:
                self._spooled = True
                where = f"{error.found} ({self._tracking.public_uri})"
                warn(f"{self._label}: {where}; the work goes on, its log is kept in {self._spool.path}")
        self._spool.append(entry)


class PipelineRun(StageRun):
    """The run of a whole pipeline."""

    def __init__(self, tracking: Tracking, run_id: str) -> None:
        spool = Spool(tracking.unlogged, run_id, tracking.public_uri)
        super().__init__(tracking, run_id, "pipeline", run_id, spool)
        self.status: Status = "FINISHED"
        """How it ends; to be changed where stages failed and nothing is raised."""

    def results(self, values: Mapping[str, float]) -> None:
        """Log what the pipeline came to, by the names that a stage gives to it."""
        now = int(time.time() * 1000)
        rows = (Metric(key=k, value=float(v), step=0, timestamp_ms=now) for k, v in values.items())
        self._deliver(Entry(run_id=self.run_id, metrics=tuple(rows)))

    def model(self, name: str, version: int) -> None:
        """Name the registered model that came out; MLflow shows the note with a link to it."""
        link = f"[{name}, version {version}](#/models/{quote(name, safe='')}/versions/{version})"
        self.tags({"steptool.model": f"models:/{name}/{version}", "mlflow.note.content": f"Model: {link}"})

    def close(self) -> None:
        """End the run; called once, by `Tracking.pipeline`."""
        self._deliver(Entry(run_id=self.run_id, status=self.status, ended_ms=int(time.time() * 1000)))


def _status_of(error: BaseException) -> Status:
    return "FAILED" if isinstance(error, Exception) else "KILLED"


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as MLflow parameters: {"train": {"gamma": 1}} gives {"train.gamma": "1"}."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat

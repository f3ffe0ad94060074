"""What happened: one MLflow run a stage, under one parent run for the whole pipeline.

A stage writes what happens into a journal on disk and asks MLflow nothing. `steptool.tracking.delivery` sends the
journal: in the process of `steptool run` or of a flow, for the stages that it starts and gives STEPTOOL_PARENT_RUN_ID
to; in the stage's own process, when its work is done, for a stage that runs by itself.

A server that does not answer at the start of a stage that runs by itself is a TrackingError before any work is done.
One that is lost later costs nothing: one line says so, and what could not be sent waits in `.steptool/unlogged/` for
the next delivery in this checkout.

Which parent a stage belongs to: the one named by STEPTOOL_PARENT_RUN_ID, else the one in `.steptool/pipeline_run`,
which the first stage writes. So stages run one by one, or by a bare `dvc repro`, gather under one parent until
`new_pipeline` opens the next.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from filelock import FileLock
from pydantic import BaseModel

from steptool.config.places import WORK
from steptool.core.errors import DataError, StorageError, TrackingError
from steptool.core.storage import write_json
from steptool.tracking.client import mlflow_errors, resolve_uri, warn
from steptool.tracking.delivery import Delivery
from steptool.tracking.journal import Dataset, Entry, Header, Journal, Metric, Status, now_ms
from steptool.tracking.machine import describe_environment
from steptool.tracking.redaction import public, redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT_VARIABLE = "STEPTOOL_PARENT_RUN_ID"


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
        self.delivery = Delivery(self.root, self.uri)

    @property
    def client(self) -> MlflowClient:
        """The MLflow client. Raises TrackingError if MLflow cannot be reached."""
        return self.delivery.connection(self.experiment)[0]

    @property
    def experiment_id(self) -> str:
        return self.delivery.connection(self.experiment)[1]

    @contextmanager
    def pipeline(self, params: Mapping[str, Any] | None = None) -> Iterator[PipelineRun]:
        """The parent run of the stages that run in the block, with the settings `params`. It ends with `status`, or
        with what ends the block: as FAILED on an exception, as KILLED on an interrupt.

        Raises TrackingError, before the block starts, if MLflow cannot be reached; at the end that is a warning.
        """
        run = self._new_pipeline_run("pipeline")
        run.params(params or {})
        with self._ended(run):
            yield run

    def new_pipeline(self, name: str = "pipeline") -> str:
        """Open a parent run, which the stages that follow will end. Returns its id."""
        run = self._new_pipeline_run(name)
        run.journal.remove()
        return run.run_id

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
        argument: str | None = None,
        params: Mapping[str, Any] | None = None,
        tracks_itself: bool = False,
    ) -> Iterator[StageRun]:
        """Track one stage. Its run ends as FINISHED, as FAILED on an exception, as KILLED on an interrupt.

        `tracks_itself`: it delivers in a pipeline too, because it needs the run's id in MLflow.
        Raises TrackingError, before the block starts, if it delivers and MLflow cannot be reached.
        """
        label = f"{name}-{argument}" if argument else name
        by_itself = not os.environ.get(PARENT_VARIABLE)
        parent = self.pipeline_run_id()
        tags = {
            "steptool.kind": "stage",
            "steptool.stage": label,
            "mlflow.parentRunId": parent,
            "mlflow.source.name": f"steptool {name}" + (f" {argument}" if argument else ""),
            "mlflow.source.type": "LOCAL",
        }
        delivers = by_itself or tracks_itself
        journal, run_id = self._begin(label, tags, opens=delivers, parent_to_end=parent if by_itself else None)
        run = StageRun(journal, run_id, label, parent)
        run.params(params or {})
        if delivers:
            self.delivery.try_to_deliver()
        with self._ended(run, delivers=delivers):
            yield run

    def _new_pipeline_run(self, name: str) -> PipelineRun:
        journal, run_id = self._begin(name, {"steptool.kind": "pipeline"})
        write_json(self._parent_file, {"run_id": run_id, "experiment": self.experiment, "uri": self.public_uri})
        return PipelineRun(journal, run_id)

    def _begin(
        self, name: str, tags: dict[str, str], *, opens: bool = True, parent_to_end: str | None = None
    ) -> tuple[Journal, str]:
        """The journal of a new run, and its id where it `opens` in MLflow at once; where that fails there is no run."""
        header = Header(
            uri=self.public_uri,
            experiment=self.experiment,
            name=name,
            tags=describe_environment(self.root) | tags,
            started_ms=now_ms(),
            parent_to_end=parent_to_end,
        )
        journal = Journal.begin(self.delivery.folder, header)
        try:
            return journal, self.delivery.open(journal, header) if opens else ""
        except BaseException:
            journal.remove()
            raise

    @contextmanager
    def _ended(self, run: Run, *, delivers: bool = True) -> Iterator[None]:
        """End `run` with the block, and as the block ends."""
        try:
            yield
        except BaseException as error:
            run.status = "FAILED" if isinstance(error, Exception) else "KILLED"
            try:
                run.end(redact(f"{type(error).__name__}: {error}", self.uri))
            except StorageError as lost:  # the error that ended the block says more
                warn(str(lost))
            raise
        else:
            run.end()
        finally:
            if delivers:
                self.delivery.try_to_deliver()

    @property
    def _parent_file(self) -> Path:
        return self.root / WORK / "pipeline_run"

    def _remembered_parent(self) -> str | None:
        """The run in `.steptool/pipeline_run`, if it is one of this experiment that still exists."""
        try:
            noted = _Parent.model_validate_json(self._parent_file.read_bytes())
            if (noted.uri, noted.experiment) != (self.public_uri, self.experiment):
                return None
            with mlflow_errors(self.uri, "look for the pipeline's run"):
                run = self.client.get_run(noted.run_id)
        except (OSError, ValueError, TrackingError):
            return None
        return noted.run_id if run.info.lifecycle_stage == "active" else None


class _Parent(BaseModel):
    """`.steptool/pipeline_run`."""

    run_id: str
    experiment: str
    uri: str


class Run:
    """A run, in its own process. Everything goes to the journal, so no method needs MLflow."""

    def __init__(self, journal: Journal, run_id: str) -> None:
        self.journal = journal
        self.run_id = run_id
        """In MLflow; empty where the process of the pipeline opens the run later."""
        self.status: Status = "FINISHED"
        """How it ends; to be changed where something failed and nothing is raised."""
        self._started = time.monotonic()

    def params(self, params: Mapping[str, Any]) -> None:
        """Log settings; nested ones get dotted names."""
        self.journal.append(Entry(params=flatten(params)))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers of one optimiser step (or whatever the stage counts)."""
        self.journal.append(Entry(metrics=_rows(step, values)))

    def dataset(self, path: Path, name: str, content_hash: str, *, context: str = "input") -> None:
        """Log that the stage read (or, by `context`, wrote) the data at `path` with this content."""
        dataset = Dataset(name=name, digest=content_hash[:36], source=str(path), context=context)
        self.journal.append(Entry(dataset=dataset))

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file or folder into the run, under `folder`. Raises DataError if it is not there."""
        if not path.exists():
            raise DataError("no such file or folder to log", where=str(path), fix="write it before logging it")
        self.journal.append(Entry(artifact=str(path), artifact_folder=folder))

    def end(self, error: str = "") -> None:
        """Close the run; called once, by `Tracking`."""
        tags = {"steptool.error": error} if error else {}
        self.journal.append(Entry(tags=tags, status=self.status, ended_ms=now_ms()))


class StageRun(Run):
    """The run of one stage."""

    def __init__(self, journal: Journal, run_id: str, label: str, parent: str) -> None:
        super().__init__(journal, run_id)
        self._prefix, self._parent = label, parent

    def summary(self, values: Mapping[str, float]) -> None:
        """Log the stage's result, and the same on the pipeline's run as `<stage>.<name>`, to compare pipelines."""
        self.metrics(0, values)
        prefixed = {f"{self._prefix}.{key}": value for key, value in values.items()}
        self.journal.append(Entry(run_id=self._parent, metrics=_rows(0, prefixed)))

    def end(self, error: str = "") -> None:
        self.metrics(0, {"wall_time_s": time.monotonic() - self._started})
        super().end(error)


class PipelineRun(Run):
    """The run of a whole pipeline."""

    def results(self, values: Mapping[str, float]) -> None:
        """Log the results of the pipeline, by name."""
        self.metrics(0, values)

    def model(self, name: str, version: int) -> None:
        """Name the registered model that came out; MLflow shows the note with a link to it."""
        link = f"[{name}, version {version}](#/models/{quote(name, safe='')}/versions/{version})"
        tags = {"steptool.model": f"models:/{name}/{version}", "mlflow.note.content": f"Model: {link}"}
        self.journal.append(Entry(tags=tags))


def _rows(step: int, values: Mapping[str, float]) -> tuple[Metric, ...]:
    now = now_ms()
    return tuple(Metric(key=key, value=float(value), step=step, timestamp_ms=now) for key, value in values.items())


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as MLflow parameters: {"train": {"gamma": 1}} gives {"train.gamma": "1"}."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat

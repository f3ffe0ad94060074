"""One entry of a journal, sent to MLflow within the limits of its API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from steptool.tracking.client import RefusedError
from steptool.tracking.journal import Dataset, Entry

if TYPE_CHECKING:
    from mlflow import MlflowClient

METRICS_A_BATCH = 1000
PARAMS_A_BATCH = 100
PARAM_LENGTH = 6000
TAG_LENGTH = 5000
KEY_LENGTH = 250
"""Limits of MLflow's REST API; longer values are cut, since half a setting is better than no run."""

Item = TypeVar("Item")


def send(client: MlflowClient, run_id: str, entry: Entry) -> None:
    """Send all that `entry` says of the run `run_id`, its end last. Sending the same again changes nothing."""
    from mlflow.entities import Metric, Param, RunTag

    metrics = [Metric(_key(row.key), row.value, row.timestamp_ms, row.step) for row in entry.metrics]
    params = [Param(_key(key), value[:PARAM_LENGTH]) for key, value in entry.params.items()]
    tags = [RunTag(_key(key), value[:TAG_LENGTH]) for key, value in entry.tags.items()]
    for batch in _batches(metrics, METRICS_A_BATCH):
        client.log_batch(run_id, metrics=batch)
    for batch in _batches(params, PARAMS_A_BATCH):
        client.log_batch(run_id, params=batch)
    for batch in _batches(tags, PARAMS_A_BATCH):
        client.log_batch(run_id, tags=batch)
    if entry.dataset is not None:
        _send_dataset(client, run_id, entry.dataset)
    if entry.artifact is not None:
        _send_artifact(client, run_id, Path(entry.artifact), entry.artifact_folder)
    if entry.status is not None:
        client.set_terminated(run_id, entry.status, entry.ended_ms)


def _send_dataset(client: MlflowClient, run_id: str, dataset: Dataset) -> None:
    from mlflow.entities import Dataset as MlflowDataset
    from mlflow.entities import DatasetInput, InputTag

    source = json.dumps({"uri": dataset.source})
    entity = MlflowDataset(name=dataset.name, digest=dataset.digest, source_type="local", source=source)
    client.log_inputs(run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", dataset.context)])])


def _send_artifact(client: MlflowClient, run_id: str, path: Path, folder: str | None) -> None:
    if not path.exists():
        raise RefusedError("the file is gone", where=str(path), fix="nothing: the rest of the run is logged")
    if path.is_dir():
        client.log_artifacts(run_id, str(path), f"{folder}/{path.name}" if folder else path.name)
    else:
        client.log_artifact(run_id, str(path), folder)


def _key(name: str) -> str:
    """MLflow takes letters, digits and `_-. :/` in names, and treats them as paths."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)[:KEY_LENGTH]


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]

"""What a pipeline's run in MLflow says at its end.

dvc.lock                                                  MLflow
prepare   reads world/      writes data/tasks             world: input      data/tasks: output
evaluate  reads data/tasks  writes metrics/evaluation     metrics/evaluation: output
.steptool/registration.json names arm ppo2                its pass rate, and models:/agent/3
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from steptool.config.places import EVALUATION, REGISTRATION
from steptool.core.errors import DataError, ParamsError
from steptool.core.storage import write_json
from steptool.evaluation.metrics import Evaluation
from steptool.stages.outcome import log_outcome
from steptool.tracking.run import Tracking

LOCK = """
schema: '2.0'
stages:
  prepare:
    cmd: steptool prepare
    deps: [{path: steptool/core/types.py, hash: md5, md5: aaa}, {path: world, hash: md5, md5: bbb.dir}]
    outs: [{path: data/tasks, hash: md5, md5: ccc.dir}]
  evaluate:
    cmd: steptool evaluate
    deps: [{path: data/tasks/test.jsonl, hash: md5, md5: ddd}]
    outs: [{path: metrics/evaluation, hash: md5, md5: eee.dir}]
"""


RECEIPT = {
    "arm": "ppo2",
    "name": "agent",
    "version": 3,
    "run_id": "a1",
    "model_hash": "b2",
    "is_new": True,
    "lineage": {},
}


@pytest.fixture
def finished(tracking: Tracking, evaluation_of: Callable[..., Evaluation], monkeypatch: pytest.MonkeyPatch) -> Tracking:
    monkeypatch.chdir(tracking.root)
    Path("dvc.lock").write_text(LOCK)
    write_json(REGISTRATION, RECEIPT)
    write_json(EVALUATION / "ppo2.json", evaluation_of("1101", "ppo2").model_dump(mode="json"))
    return tracking


def test_pipeline_names_its_data_its_results_and_its_model(finished: Tracking) -> None:
    with finished.pipeline({"seed": 17}) as run:
        log_outcome(run)
    logged = finished.client.get_run(run.run_id)
    datasets = {
        given.dataset.name: (given.dataset.digest, given.tags[0].value) for given in logged.inputs.dataset_inputs
    }
    assert datasets == {
        "world": ("bbb.dir", "input"),
        "data/tasks": ("ccc.dir", "output"),
        "metrics/evaluation": ("eee.dir", "output"),
    }
    assert logged.data.metrics["pass_rate"] == 0.75
    assert logged.data.params["seed"] == "17"
    assert logged.data.tags["steptool.model"] == "models:/agent/3"


@pytest.mark.parametrize("wrong", ["{}", "[]", "5", '"text"', "null", '{"name": "agent", "version": "last"}', "{", ""])
def test_receipt_of_another_shape_is_named(wrong: str, finished: Tracking) -> None:
    REGISTRATION.write_text(wrong)
    with pytest.raises(DataError, match=r"registration\.json"), finished.pipeline() as run:
        log_outcome(run)


@pytest.mark.parametrize(
    "wrong", ["[]", "stages: 5", "stages: {register: 5}", "<<<<<<< HEAD\n", "a: [", "stages: {a: {outs: [x]}}"]
)
def test_lock_of_another_shape_is_named(wrong: str, finished: Tracking) -> None:
    Path("dvc.lock").write_text(wrong)
    with pytest.raises(ParamsError, match=r"dvc\.lock"), finished.pipeline() as run:
        log_outcome(run)

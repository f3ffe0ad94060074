"""What a pipeline's run in MLflow says at its end.

dvc.lock                                                  MLflow
prepare   reads world/      writes data/tasks             world: input      data/tasks: output
register  reads data/tasks  writes metrics/registration   models:/agent/3   metrics/registration: output
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from steptool.config.settings import load_params
from steptool.core.errors import DataError, ParamsError
from steptool.evaluation.metrics import Evaluation
from steptool.stages.outcome import log_outcome
from steptool.stages.rounds import last_round
from steptool.tracking.run import Tracking

LOCK = """
schema: '2.0'
stages:
  prepare:
    cmd: steptool prepare
    deps: [{path: steptool/core/types.py, hash: md5, md5: aaa}, {path: world, hash: md5, md5: bbb.dir}]
    outs: [{path: data/tasks, hash: md5, md5: ccc.dir}]
  register:
    cmd: steptool register
    deps: [{path: data/tasks/test.jsonl, hash: md5, md5: ddd}]
    outs: [{path: metrics/registration, hash: md5, md5: eee.dir}]
"""


@pytest.fixture
def finished(tracking: Tracking, evaluation_of: Callable[..., Evaluation], monkeypatch: pytest.MonkeyPatch) -> Tracking:
    params = load_params()
    monkeypatch.chdir(tracking.root)
    Path("dvc.lock").write_text(LOCK)
    Path("metrics/registration").mkdir(parents=True)
    Path("metrics/registration/receipt.json").write_text(json.dumps({"name": "agent", "version": 3, "lineage": {}}))
    Path("metrics/evaluation").mkdir()
    evaluated = evaluation_of("1101", last_round(params)).model_dump(mode="json")
    Path(f"metrics/evaluation/{last_round(params)}.json").write_text(json.dumps(evaluated))
    return tracking


def test_pipeline_names_its_data_its_results_and_its_model(finished: Tracking) -> None:
    params = load_params(Path(__file__).parents[2] / "params.yaml")
    with finished.pipeline(params.model_dump()) as run:
        log_outcome(run, params)
    logged = finished.client.get_run(run.run_id)
    datasets = {
        given.dataset.name: (given.dataset.digest, given.tags[0].value) for given in logged.inputs.dataset_inputs
    }
    assert datasets == {
        "world": ("bbb.dir", "input"),
        "data/tasks": ("ccc.dir", "output"),
        "metrics/registration": ("eee.dir", "output"),
    }
    assert logged.data.metrics["pass_rate"] == 0.75
    assert logged.data.params["seed"] == str(params.seed)
    assert logged.data.tags["steptool.model"] == "models:/agent/3"


@pytest.mark.parametrize("wrong", ["{}", "[]", "5", '"text"', "null", '{"name": "agent", "version": "last"}', "{", ""])
def test_receipt_of_another_shape_is_named(wrong: str, finished: Tracking) -> None:
    params = load_params(Path(__file__).parents[2] / "params.yaml")
    Path("metrics/registration/receipt.json").write_text(wrong)
    with pytest.raises(DataError, match=r"receipt\.json"), finished.pipeline() as run:
        log_outcome(run, params)


@pytest.mark.parametrize(
    "wrong", ["[]", "stages: 5", "stages: {register: 5}", "<<<<<<< HEAD\n", "a: [", "stages: {a: {outs: [x]}}"]
)
def test_lock_of_another_shape_is_named(wrong: str, finished: Tracking) -> None:
    params = load_params(Path(__file__).parents[2] / "params.yaml")
    Path("dvc.lock").write_text(wrong)
    with pytest.raises(ParamsError, match=r"dvc\.lock"), finished.pipeline() as run:
        log_outcome(run, params)

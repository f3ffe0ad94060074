"""What a stage writes down reaches a real MLflow through the relay: whole, once, and whoever is killed."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from steptool.tracking import delivery as delivery_module
from steptool.tracking import relay as relay_module
from steptool.tracking.journal import Entry
from steptool.tracking.relay import Relay
from steptool.tracking.run import PARENT_VARIABLE, Tracking
from tests.orchestration.test_process import wait_for

SOON_S = 30
STAGE = """
import sys
import time
from steptool.tracking.run import Tracking
with Tracking({uri!r}, "test").stage("train", argument="r1", params={{"seed": 17}}) as run:
    run.metrics(1, {{"loss": 0.5}})
    {then}
assert "mlflow" not in sys.modules
"""


@pytest.fixture
def parent(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> str:
    """A pipeline whose stages are relayed."""
    monkeypatch.setattr(relay_module, "POLL_S", 0.05)
    monkeypatch.setattr(relay_module, "RETRY_S", 0.05)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    run_id = tracking.new_pipeline()
    monkeypatch.setenv(PARENT_VARIABLE, run_id)
    return run_id


def stage_runs(tracking: Tracking) -> list[Run]:
    return list(tracking.client.search_runs([tracking.experiment_id], "tags.`steptool.kind` = 'stage'"))


def start(tracking: Tracking, then: str = "pass") -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    script = STAGE.format(uri=tracking.uri, then=then)
    return subprocess.Popen([sys.executable, "-c", script], cwd=tracking.root, env=environment)


def test_what_a_stage_wrote_down_is_the_run_that_it_would_have_logged(
    tracking: Tracking, parent: str, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    page.write_text("as it was")
    with tracking.stage("train", argument="r1", params={"seed": 17}) as run:
        run.metrics(1, {"loss": 0.5})
        run.dataset(Path("data"), "data", "abc")
        run.artifact(page, "validation")
        page.write_text("replaced since")
        run.summary({"pass_rate": 0.75})
    assert not stage_runs(tracking)
    with Relay(tracking.root):
        pass
    (logged,) = stage_runs(tracking)
    assert (logged.info.run_name, logged.info.status) == ("train-r1", "FINISHED")
    assert logged.data.params == {"seed": "17"}
    assert {"loss": 0.5, "pass_rate": 0.75}.items() <= logged.data.metrics.items()
    assert logged.data.tags["mlflow.parentRunId"] == parent
    assert logged.inputs.dataset_inputs[0].dataset.digest == "abc"
    local = tracking.client.download_artifacts(logged.info.run_id, "validation/page.html")
    assert Path(local).read_text() == "as it was"
    assert tracking.client.get_run(parent).data.metrics == {"train-r1.pass_rate": 0.75}
    assert list(tracking.delivery.folder.iterdir()) == []


def test_stage_is_seen_while_it_runs_and_never_loads_mlflow(tracking: Tracking, parent: str) -> None:
    with Relay(tracking.root):
        child = start(tracking, "time.sleep(3)")
        wait_for(lambda: any(run.data.metrics == {"loss": 0.5} for run in stage_runs(tracking)), SOON_S)
        assert child.poll() is None
        assert stage_runs(tracking)[0].info.status == "RUNNING"
        assert stage_runs(tracking)[0].data.params == {"seed": "17"}
        assert child.wait(60) == 0
    assert stage_runs(tracking)[0].info.status == "FINISHED"


def test_stage_killed_outright_ends_as_killed(tracking: Tracking, parent: str) -> None:
    with Relay(tracking.root):
        child = start(tracking, "time.sleep(60)")
        wait_for(lambda: stage_runs(tracking), SOON_S)
        child.kill()
        child.wait()
        wait_for(lambda: stage_runs(tracking)[0].info.status == "KILLED", SOON_S)
    assert stage_runs(tracking)[0].data.params == {"seed": "17"}
    assert list(tracking.delivery.folder.iterdir()) == []


def test_relay_that_was_killed_is_taken_over_by_the_next_without_a_second_run(
    tracking: Tracking, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first dies after it has opened the run and sent some of it, before it could forget the file."""
    with tracking.stage("train") as run:
        run.metrics(1, {"loss": 0.5})
    with monkeypatch.context() as patch:
        patch.setattr("steptool.tracking.journal.Journal.remove", lambda self: None)
        with Relay(tracking.root):
            pass
    assert [path.suffix for path in sorted(tracking.delivery.folder.iterdir())] == [".jsonl", ".sent"]
    with Relay(tracking.root):
        pass
    (logged,) = stage_runs(tracking)
    assert len(tracking.client.get_metric_history(logged.info.run_id, "loss")) == 1
    assert list(tracking.delivery.folder.iterdir()) == []


def test_mlflow_that_is_gone_for_a_while_costs_one_warning_and_nothing_else(
    tracking: Tracking, parent: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tries = []

    def gone(*_: object) -> None:
        tries.append(1)
        raise MlflowException("connection reset", error_code=10)  # TEMPORARILY_UNAVAILABLE

    with Relay(tracking.root):
        with monkeypatch.context() as patch:
            patch.setattr(delivery_module, "send", gone)
            with tracking.stage("train") as run:
                run.summary({"pass_rate": 0.5})
            wait_for(lambda: len(tries) > 2, SOON_S)
        wait_for(lambda: not list(tracking.delivery.folder.iterdir()), SOON_S)
    (logged,) = stage_runs(tracking)
    assert (logged.info.status, logged.data.metrics["pass_rate"]) == ("FINISHED", 0.5)
    (warning,) = capsys.readouterr().err.splitlines()
    assert "connection reset" in warning
    assert str(tracking.delivery.folder) in warning


def test_disk_that_is_full_for_a_while_loses_nothing(
    tracking: Tracking, parent: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with Relay(tracking.root):
        with monkeypatch.context() as patch:
            patch.setattr("steptool.core.storage.os.fsync", lambda _: (_ for _ in ()).throw(full))
            with tracking.stage("train") as run:
                run.summary({"pass_rate": 0.5})
            warned = ""

            def warning() -> str:
                nonlocal warned
                warned += capsys.readouterr().err
                return warned

            wait_for(lambda: "No space left on device" in warning(), SOON_S)
        wait_for(lambda: not list(tracking.delivery.folder.iterdir()), SOON_S)
    (logged,) = stage_runs(tracking)
    assert (logged.info.status, logged.data.metrics["pass_rate"]) == ("FINISHED", 0.5)


def test_what_an_mlflow_that_stays_gone_missed_is_sent_by_the_next_pipeline(
    tracking: Tracking, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(delivery_module, "send", lambda *_: (_ for _ in ()).throw(MlflowException("no", error_code=10)))
        with Relay(tracking.root), tracking.stage("train") as run:
            run.summary({"pass_rate": 0.5})
    with Relay(tracking.root):
        pass
    (logged,) = stage_runs(tracking)
    assert (logged.info.status, logged.data.metrics["pass_rate"]) == ("FINISHED", 0.5)


def test_two_relays_of_a_checkout_send_once(tracking: Tracking, parent: str) -> None:
    with Relay(tracking.root), Relay(tracking.root):
        for name in ("sample", "annotate", "train"):
            with tracking.stage(name):
                pass
    assert sorted(str(run.info.run_name) for run in stage_runs(tracking)) == ["annotate", "sample", "train"]


def test_broken_file_is_set_aside_and_the_others_go_on(
    tracking: Tracking, parent: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("sample", "train"):
        with tracking.stage(name):
            pass
    broken = min(tracking.delivery.folder.glob("*.jsonl"))
    broken.write_text(broken.read_text().splitlines()[0] + "\nnot json\n")
    with Relay(tracking.root):
        pass
    assert sorted(run.info.status for run in stage_runs(tracking)) == ["FAILED", "FINISHED"]
    assert f"{broken}:2: not an entry of a journal" in capsys.readouterr().err
    assert broken.with_suffix(".aside").exists()


HEADER = {
    "experiment": "test",
    "name": "x",
    "tags": {"steptool.host": "elsewhere", "steptool.pid": "1"},
    "started_ms": 1,
}
WRONG = {
    "bytes": b"\xff\xfe\n",
    "nul": b"\0\0\0\n",
    "text": b'"text"\n',
    "list": b"[]\n",
    "number": b"5\n",
    "null": b"null\n",
    "deep": b"[" * 200_000 + b"\n",
    "digits": b'{"uri": ' + b"9" * 5000 + b"}\n",
    "no-uri": b"{}\n",
    "no-run": {},
    "pid": HEADER | {"tags": {"steptool.host": "x", "steptool.pid": "many"}},
    "long-pid": HEADER | {"tags": {"steptool.host": "x", "steptool.pid": "9" * 5000}},
    "no-tags": HEADER | {"tags": {}},
    "tag": HEADER | {"tags": HEADER["tags"] | {"a": 5}},  # type: ignore[operator]
    "entry-list": [HEADER, []],
    "entry-number": [HEADER, {"run_id": 5, "params": {"a": "1"}}],
    "step": [HEADER, {"metrics": [{"key": "a", "value": 1, "step": 1 << 80, "timestamp_ms": 1}]}],
    "value": [HEADER, {"metrics": [{"key": "a", "value": "much", "step": 1, "timestamp_ms": 1}]}],
    "status": [HEADER, {"status": "GREAT"}],
}


def test_file_of_any_wrong_shape_is_set_aside_and_the_others_go_on(
    tracking: Tracking, parent: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracking.stage("train") as run:
        run.metrics(1, {"loss": float("nan"), "kl": float("-inf")})
        run.journal.append(Entry(tags={"half a character": "\udc80", "nul": "a\0b"}))
    for name, wrong in WRONG.items():
        lines = wrong if isinstance(wrong, list) else [wrong]
        if not isinstance(wrong, bytes):
            first = {"uri": tracking.public_uri} | lines[0]
            wrong = "".join(json.dumps(line) + "\n" for line in [first, *lines[1:]]).encode()
        (tracking.delivery.folder / f"{name}.jsonl").write_bytes(wrong)
    (tracking.delivery.folder / "folder.jsonl").mkdir()
    with Relay(tracking.root):
        pass
    assert {path.stem for path in tracking.delivery.folder.glob("*.aside")} == {*WRONG, "folder"}
    assert not list(tracking.delivery.folder.glob("*.jsonl"))
    (logged,) = [run for run in stage_runs(tracking) if run.info.run_name == "train"]
    assert logged.info.status == "FINISHED"
    assert logged.data.tags["half a character"] == "\\udc80"
    assert capsys.readouterr().err.count("set aside in") == len(WRONG) + 1


def test_artifact_that_somebody_deleted_does_not_hold_up_the_rest(
    tracking: Tracking, parent: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    page.write_text("fine")
    with tracking.stage("train") as run:
        run.artifact(page)
    for copy in tracking.delivery.folder.rglob("page.html"):
        copy.unlink()
    with Relay(tracking.root):
        pass
    (logged,) = stage_runs(tracking)
    assert logged.info.status == "FINISHED"
    assert "the file is gone" in capsys.readouterr().err


def test_stage_that_tracks_itself_has_a_run_from_its_start(tracking: Tracking, parent: str) -> None:
    with Relay(tracking.root), tracking.stage("register", tracks_itself=True) as run:
        assert tracking.client.get_run(run.run_id).info.status == "RUNNING"
    (logged,) = stage_runs(tracking)
    assert (logged.info.run_id, logged.info.status) == (run.run_id, "FINISHED")
    assert tracking.client.get_run(parent).info.status == "RUNNING"
